"""Tools that clients announce: listed and counted as long as their session lives."""

from __future__ import annotations

import grpc
import pytest
from fix_bridge import Bridge, status_of

from snakepit_mp import SessionStore
from snakepit_mp.bridge import snakepit_bridge_pb2 as pb
from snakepit_mp.bridge.announced import AnnouncedTools
from snakepit_mp.errors import InvalidArguments, SessionLimitReached, SessionNotFound


def _announce(bridge: Bridge, *names: str) -> pb.RegisterToolsResponse:
    request = pb.RegisterToolsRequest(
        session_id="s",
        worker_id="w7",
        tools=[pb.ToolRegistration(name=n, description=n.upper()) for n in names],
    )
    answer: pb.RegisterToolsResponse = bridge.stub.RegisterTools(request)
    return answer


def _tools(bridge: Bridge) -> dict[str, pb.ToolSpec]:
    answer = bridge.stub.InitializeSession(pb.InitializeSessionRequest(session_id="s"))
    return dict(answer.available_tools)


def test_announced_tools_are_listed_and_counted(bridge: Bridge) -> None:
    ours = set(_tools(bridge))
    answer = _announce(bridge, "theirs", "echo")
    assert answer.success
    assert dict(answer.tool_ids) == {"theirs": "s:theirs", "echo": "s:echo"}
    tools = _tools(bridge)
    assert set(tools) == ours | {"theirs"}
    assert tools["theirs"].description == "THEIRS"
    assert dict(tools["theirs"].metadata) == {"announced_by": "w7"}
    assert "announced_by" not in tools["echo"].metadata  # the pool's own is what a call runs
    count = bridge.stub.GetSession(pb.GetSessionRequest(session_id="s")).tool_count
    assert count == len(ours) + 1


def test_they_go_with_their_session(bridge: Bridge) -> None:
    ours = set(_tools(bridge))
    _announce(bridge, "theirs")
    bridge.stub.CleanupSession(pb.CleanupSessionRequest(session_id="s"))
    assert set(_tools(bridge)) == ours


def test_they_cannot_be_called_through_the_application(bridge: Bridge) -> None:
    _tools(bridge)
    _announce(bridge, "theirs")
    request = pb.ExecuteToolRequest(session_id="s", tool_name="theirs")
    assert status_of(lambda: bridge.stub.ExecuteTool(request))[0] is grpc.StatusCode.NOT_FOUND


def _registrations(*names: str) -> list[pb.ToolRegistration]:
    return [pb.ToolRegistration(name=name) for name in names]


def test_another_session_of_the_same_id(store: SessionStore) -> None:
    tools = AnnouncedTools(store)
    store.create_session("s")
    tools.add("s", _registrations("a"), "w")
    store.delete_session("s")
    with pytest.raises(SessionNotFound):
        tools.add("s", _registrations("b"), "w")
    later = store.create_session("s")
    assert tools.of("s", later.created_at) == {}
    tools.add("s", _registrations("b"), "w")
    assert set(tools.of("s", later.created_at)) == {"b"}


def test_sessions_that_ended_elsewhere_are_forgotten(store: SessionStore) -> None:
    tools = AnnouncedTools(store)
    for number in range(300):
        store.create_session(str(number))
        tools.add(str(number), _registrations("a"), "w")
        if number:
            store.delete_session(str(number))
    assert len(tools._sessions) <= 64
    assert tools.of("0", store.get_session("0").created_at)


def test_limit(store: SessionStore) -> None:
    tools = AnnouncedTools(store)
    created = store.create_session("s").created_at
    tools.add("s", _registrations(*map(str, range(1000))), "w")
    tools.add("s", _registrations("7"), "w")
    with pytest.raises(SessionLimitReached) as caught:
        tools.add("s", _registrations("one more"), "w")
    assert caught.value.limit == 1000
    assert len(tools.of("s", created)) == 1000


def test_a_tool_needs_a_name(store: SessionStore) -> None:
    store.create_session("s")
    with pytest.raises(InvalidArguments):
        AnnouncedTools(store).add("s", _registrations("a", ""), "w")
