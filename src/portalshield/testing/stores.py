"""A store that fails."""
from portalshield.model.needs import Unavailable
class FailingStore:
    is_local = True
    def hit(self, hit):
        return Unavailable("store-failed")
