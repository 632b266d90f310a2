from limits import parse_many
from portalshield.model.needs import Quota
def parse_quotas(text, name, strategy):
    return tuple(Quota(name, i.amount, i.get_expiry(), strategy) for i in parse_many(text))
