"""Files of a practice: upload, list, download."""

import shutil
from collections.abc import Sequence
from pathlib import PurePosixPath
from uuid import uuid4

from fastapi import APIRouter, HTTPException, UploadFile
from fastapi.responses import FileResponse
from sqlalchemy import select

from ..auth import CurrentUser, Settings
from ..db import Db
from ..models import Document, Tenant
from ..schemas import DocumentOut

router = APIRouter(prefix="/documents", tags=["documents"])
SUFFIXES = {".pdf": "application/pdf", ".png": "image/png", ".jpg": "image/jpeg", ".txt": "text/plain"}


def display_name(filename: str) -> str:
    """The last part of a client's file name, printable, at most 120 characters."""
    last = PurePosixPath(filename.replace("\\", "/")).name
    return "".join(char for char in last if char.isprintable())[-120:]


@router.get("", response_model=list[DocumentOut])
def list_documents(tenant_id: str, db: Db, user: CurrentUser) -> Sequence[Document]:
    return db.scalars(select(Document).where(Document.tenant_id == tenant_id).order_by(Document.id)).all()


@router.post("", response_model=DocumentOut, status_code=201)
def upload_document(tenant_id: str, file: UploadFile, db: Db, config: Settings, user: CurrentUser) -> Document:
    if db.get(Tenant, tenant_id) is None:
        raise HTTPException(404, "No such tenant")
    filename = display_name(file.filename or "")
    suffix = PurePosixPath(filename).suffix.lower()
    if suffix not in SUFFIXES:
        raise HTTPException(400, "Only PDF, PNG, JPEG and text files")
    config.uploads.mkdir(parents=True, exist_ok=True)
    target = config.uploads / f"{uuid4().hex}{suffix}"
    with target.open("wb") as out:
        shutil.copyfileobj(file.file, out)
    document = Document(
        tenant_id=tenant_id,
        filename=filename,
        stored_as=target.name,
        content_type=SUFFIXES[suffix],
        size_bytes=target.stat().st_size,
    )
    db.add(document)
    db.commit()
    return document


@router.get("/{document_id:int}/download")
def download_document(tenant_id: str, document_id: int, db: Db, config: Settings, user: CurrentUser) -> FileResponse:
    document = db.get(Document, document_id)
    if document is None or document.tenant_id != tenant_id:
        raise HTTPException(404, "No such document")
    return FileResponse(
        config.uploads / document.stored_as, media_type=document.content_type, filename=document.filename
    )
