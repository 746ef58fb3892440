"""What a batch is made of, without any process."""

from __future__ import annotations

import pytest

from snakepit_mp.errors import CodecError
from snakepit_mp.lanes.envelope import Call, Kind, decode_call, encode_error, frame, whole
from snakepit_mp.runtime.batching import Batch, Landing
from snakepit_mp.values import codec

CALL = Call("tool", session_id="s", context={"m:V": 1})


def test_its_items_are_read_back_as_they_were_sent():
    box = [1]
    body = Batch(CALL, [{"box": box}, {"box": [2]}]).body(allow_pickle=True)
    box[0] = object()  # type: ignore[call-overload]  # nothing that could be sent again

    batch = Batch.of(CALL, body, allow_pickle=True)

    assert batch.items == [{"box": [1]}, {"box": [2]}]
    assert Batch.of(CALL, batch.after(1).body(allow_pickle=True), allow_pickle=True).items == [
        {"box": [2]}
    ]


@pytest.mark.parametrize("named", [True, False])
def test_one_of_them_is_a_call_like_any_other(named: bool):
    call = CALL if named else Call(function=b"f")
    items = [{"a": 1}, {"a": 2}] if named else [(1,), (2,)]
    body = Batch(call, items).single(1, allow_pickle=True)

    found = decode_call(frame(Kind.CALL, 1, 1, whole(body)), allow_pickle=True)

    assert (found.command, found.function, found.session_id) == (
        call.command,
        call.function,
        call.session_id,
    )
    assert (found.args, found.kwargs) == ((), {"a": 2}) if named else ((2,), {})


def test_what_travels_by_pickle_does_not_travel_together():
    with pytest.raises(CodecError):
        Batch(CALL, [{"a": Landing}]).body(allow_pickle=True)


def test_a_landing_gives_values_then_whatever_there_is():
    outcomes = [
        (codec.encode(1), False),
        (encode_error(1, KeyError("k")), True),
        (b"nonsense", False),
        (codec.encode(2), False),
    ]

    values, rest = Landing(outcomes).results(allow_pickle=True)  # type: ignore[arg-type]

    assert values == [1]
    found = list(rest)
    assert isinstance(found[0][1], KeyError)
    assert isinstance(found[1][1], CodecError)
    assert found[2] == (2, None)


def test_a_landing_that_begins_with_nonsense():
    values, rest = Landing([(b"nonsense", False), (codec.encode(2), False)]).results(
        allow_pickle=True
    )
    assert values == []
    (_, error), second = rest
    assert isinstance(error, CodecError)
    assert error.path == "result"
    assert second == (2, None)
