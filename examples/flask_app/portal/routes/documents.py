"""Files of a practice: upload, list, download."""

from pathlib import PurePosixPath
from uuid import uuid4

from flask import Blueprint, Response, abort, request, send_from_directory
from flask.typing import ResponseReturnValue
from sqlalchemy import select
from werkzeug.utils import secure_filename

from ..auth import get_config, login_required
from ..db import get_db
from ..models import Document, Tenant
from ..payloads import Json, document_json

bp = Blueprint("documents", __name__, url_prefix="/documents")
SUFFIXES = {".pdf": "application/pdf", ".png": "image/png", ".jpg": "image/jpeg", ".txt": "text/plain"}


@bp.get("")
@login_required
def list_documents(tenant_id: str) -> list[Json]:
    query = select(Document).where(Document.tenant_id == tenant_id).order_by(Document.id)
    return [document_json(document) for document in get_db().scalars(query)]


@bp.post("")
@login_required
def upload_document(tenant_id: str) -> ResponseReturnValue:
    db = get_db()
    if db.get(Tenant, tenant_id) is None:
        abort(404, "No such tenant")
    file = request.files["file"]
    filename = secure_filename(file.filename or "")[-120:]
    suffix = PurePosixPath(filename).suffix.lower()
    if suffix not in SUFFIXES:
        abort(400, "Only PDF, PNG, JPEG and text files")
    uploads = get_config().uploads
    uploads.mkdir(parents=True, exist_ok=True)
    target = uploads / f"{uuid4().hex}{suffix}"
    file.save(target)
    document = Document(
        tenant_id=tenant_id,
        filename=filename,
        stored_as=target.name,
        content_type=SUFFIXES[suffix],
        size_bytes=target.stat().st_size,
    )
    db.add(document)
    db.commit()
    return document_json(document), 201


@bp.get("/<int:document_id>/download")
@login_required
def download_document(tenant_id: str, document_id: int) -> Response:
    document = get_db().get(Document, document_id)
    if document is None or document.tenant_id != tenant_id:
        abort(404, "No such document")
    return send_from_directory(
        get_config().uploads.resolve(),
        document.stored_as,
        mimetype=document.content_type,
        as_attachment=True,
        download_name=document.filename,
    )
