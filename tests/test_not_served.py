"""What some official client may say and we do not serve is refused by its name."""

from __future__ import annotations

import msgpack
import pytest

from pie_trio.services.client_protocol import ProtocolError, decode_from_client


@pytest.mark.parametrize(
    "name",
    [
        "auth_prove",
        "auth_by_token",
        "launch_daemon",
        "register_mcp_server",
        "mcp_response",
        "submit_workflow",
        "cancel_workflow",
        "attach_workflow",
        "detach_workflow",
    ],
)
def test_what_is_not_served_is_refused_by_its_name_to_whoever_asked(name: str) -> None:
    with pytest.raises(ProtocolError, match=f"^{name} is not served$") as refusal:
        decode_from_client(msgpack.packb({"type": name, "corr_id": 7}))
    assert refusal.value.corr_id == 7
