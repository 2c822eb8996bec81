"""Serve a bundle over HTTP: bundle -> reader -> application -> until it is told to stop."""

import logging
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from omegaconf import DictConfig

from cxrnet.cli.run_folder import shown
from cxrnet.core import console
from cxrnet.core.config import plain_config
from cxrnet.core.machine import package_versions
from cxrnet.errors import CxrnetError
from cxrnet.models.bundle import Bundle, device_of, load_bundle
from cxrnet.reporting.model_card import AUDIT, read_card
from cxrnet.reporting.wording import NO_GATE
from cxrnet.workflows.bundle_source import BundleSource, find_bundle, tested_metrics

TOKEN = "CXRNET_TOKEN"
_TOGETHER = 32  # images that are read at once
_SHORTEST = 16  # characters of a token: a shorter one can be guessed


def serve(config: DictConfig) -> None:
    """Serve a bundle until SIGINT or SIGTERM; nothing is written.

    Raises:
        CxrnetError: a mistake in the configuration, no such bundle, a port that is taken, or a package is missing.
    """
    plain = plain_config(config)
    try:
        import uvicorn

        from cxrnet.serving.app import RESEARCH, make_app
        from cxrnet.serving.protection import LOCAL, Protection
        from cxrnet.serving.reader import Reader
        from cxrnet.serving.uploads import Limits
    except ImportError as error:
        raise CxrnetError(f"serve: {error.name} is not installed; pip install 'cxrnet[serve]'") from error
    local = plain["host"] in LOCAL
    given = plain["token"] or os.environ.get(TOKEN)  # the command line is seen by all users of a machine
    token = check_token(given, local)
    with TemporaryDirectory() as scratch:
        source = find_bundle(plain["bundle"], Path(scratch), outputs=plain["outputs"])
        bundle = load_bundle(source.folder)
        model = about(bundle, tested_metrics(source, bundle)) | {"audit": audited(source), "notice": RESEARCH}
    device = device_of(plain["device"])
    reader = Reader(bundle, device, plain["batch_size"], round(plain["max_megapixels"] * 1e6))
    limits = Limits(round(plain["max_mb"] * 1e6), plain["max_files"], plain["timeout"])
    app = make_app(reader, limits, plain["room"], _TOGETHER, model)
    hosts = [*LOCAL, *plain["hosts"]] if local or plain["hosts"] else []
    # Each broken upload would write a line; its answer says what is wrong with it.
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    with closing(listening(plain["host"], plain["port"])) as bound:
        console.heading("Server")
        console.say("bundle", f"{shown(Path(plain['bundle']))}: {', '.join(bundle.classes)}")
        if bundle.gate is None:
            console.say("gate", NO_GATE)
        console.say("address", f"http://{plain['host']}:{bound.getsockname()[1]}  (a page for readers, and the API)")
        if token is not None and given is None:
            console.say("token", f"{token} (each request brings it: Authorization: Bearer <token>)")
        console.say("notice", RESEARCH)
        settings = uvicorn.Config(
            Protection(app, hosts, token),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=10,
            lifespan="on",
        )
        uvicorn.Server(settings).run(sockets=[bound])


def check_token(given: str | None, local: bool) -> str | None:
    """Return the token that requests must bring: the one given, or, where others reach the server, one made up.

    Raises:
        CxrnetError: it is too short, or holds what a header can't.
    """
    if given is None:
        return None if local else secrets.token_urlsafe(32)
    if len(given) < _SHORTEST or not given.isascii() or not given.isprintable() or " " in given:
        raise CxrnetError(f"token: give {_SHORTEST} letters and digits or more, without spaces; or leave it out")
    return given


def listening(host: str, port: int) -> socket.socket:
    """Open the port.

    Raises:
        CxrnetError: it is taken, may not be used, or the host is none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()  # who asks before the server is there waits
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CxrnetError(f"port: {host}:{port} can't be opened ({reason}); give another host or port") from error
    return bound


def audited(source: BundleSource) -> list[str]:
    """Return what the audit of the model found, as its card says it; empty where it was not audited."""
    card = read_card(source.run)
    sections = [section for section in card.sections if section.title == AUDIT] if card else []
    return [sentence for section in sections for sentence in section.sentences]


def about(bundle: Bundle, tested: Mapping[str, Any] | None) -> dict[str, Any]:
    """Describe a bundle and its own test result, as JSON has it."""
    network = bundle.network.config
    result: dict[str, Any] = {"reason": "the files of its run don't lie beside the bundle"}
    if tested is not None:
        pairs = {
            name: {metric: each[metric] for metric in ("sensitivity", "specificity")}
            for name, each in tested["per_class"].items()
        }
        result = {name: tested[name] for name in ("accuracy", "roc_auc_macro") if name in tested} | {"classes": pairs}
    return {
        "backbone": network.backbone,
        "size": list(network.size),
        "resize": bundle.resize,
        "classes": list(bundle.classes),
        "operating_points": bundle.operating_points,
        "defer_below": bundle.defer_below,
        "prior": bundle.prior,
        "gate": bundle.gate is not None,
        "trained_on": bundle.manifest_digest,
        "tested": result,
        "versions": {"trained": bundle.versions, "running": package_versions()},
    }
