"""Stores bundles and constructor arguments, by content: the same bytes are sent and kept once."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from pathlib import Path

from fastapi import APIRouter, Request, Response

from fngw.errors import FngwError, ValidationError
from fngw_gateway.settings import GatewaySettings

router = APIRouter(tags=["blobs"])


@router.head("/blobs/{digest}")
async def has_blob(digest: str, request: Request) -> Response:
    """200 when the blob is there, and stays for the next hour; else 404."""
    return Response(status_code=200 if claim(_path(request, digest)) else 404)


@router.put("/blobs/{digest}", status_code=201)
async def put_blob(digest: str, request: Request) -> dict[str, str]:
    """Store the body under its digest, which is checked."""
    path, settings = _path(request, digest), request.app.state.settings
    if not claim(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
        try:
            found = await _receive(request, draft, settings)
            if found != digest:
                raise ValidationError(f"the body's digest is {found}, not {digest}", code="digest_mismatch")
            draft.replace(path)
        except OSError as error:
            raise _disk_error(error, settings) from error
        finally:
            draft.unlink(missing_ok=True)
    return {"digest": digest}


def claim(path: Path) -> bool:
    """Tell whether a blob is there. One that is counts as new: the controller clears old, unneeded ones away."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _path(request: Request, digest: str) -> Path:
    settings: GatewaySettings = request.app.state.settings
    try:
        return settings.layout.blob(digest)
    except ValueError as error:
        raise ValidationError(str(error)) from None


async def _receive(request: Request, draft: Path, settings: GatewaySettings) -> str:
    """Write the body to ``draft``; return its digest. What is on disk when this returns survives a power cut."""
    hashed, size = hashlib.sha256(), 0
    with draft.open("wb") as file:
        async for chunk in request.stream():
            size += len(chunk)
            if size > settings.max_bundle:
                raise ValidationError(
                    f"the upload is larger than {settings.max_bundle >> 20} MiB",
                    code="bundle_too_large",
                    status=413,
                    hint="leave large files out with .fngwignore, or raise FNGW_MAX_BUNDLE of the gateway",
                )
            hashed.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return f"sha256:{hashed.hexdigest()}"


def _disk_error(error: OSError, settings: GatewaySettings) -> FngwError:
    if error.errno == errno.ENOSPC:
        return FngwError(
            f"the disk of the data dir {settings.data_dir} is full; nothing was stored",
            code="disk_full",
            status=507,
            hint="free some space and deploy again",
        )
    return FngwError(f"cannot store the upload: {error}", code="storage_error", hint="see the gateway's log")
