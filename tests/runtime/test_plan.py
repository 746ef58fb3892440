"""What the application tells its fork server, and what it refuses to."""

from __future__ import annotations

import multiprocessing
import sys
import types

import pytest

from snakepit_mp.adapter import Adapter, tool
from snakepit_mp.config import PoolConfig, StoreConfig
from snakepit_mp.errors import ConfigError
from snakepit_mp.runtime.plan import AdapterReference, ForkPlan

STORE = StoreConfig(max_bytes=1 << 22)


class Mine(Adapter):
    @tool
    def answer(self) -> int:
        return 42


def make(adapter=None, **settings):
    return ForkPlan.make(adapter, PoolConfig(store=STORE, **settings))


def test_a_plan_travels_unchanged():
    plan = make("os:Path", preload=("json",), env={"A": "b"}, threads=3, name="name")
    plan = plan.with_directory("/run/somewhere")
    assert ForkPlan.decode(plan.encode()) == plan


@pytest.mark.parametrize("name", ["", "module", "module:", ":Class", "a b:C", "a.b:C-D", "a:b:c"])
def test_names_that_cannot_be_meant_are_refused(name):
    with pytest.raises(ConfigError, match=r"'package\.module:Class'"):
        make(name)


@pytest.mark.parametrize("adapter", [3, object(), int, Mine()])
def test_what_is_no_adapter_class_is_refused(adapter):
    with pytest.raises(ConfigError, match="must be a subclass of Adapter"):
        make(adapter)


def test_names_are_not_imported_here():
    assert make("no.such.module:Class").adapter == AdapterReference("no.such.module", "Class")


def test_a_class_that_can_be_imported_goes_by_name(make_module):
    name = make_module("from snakepit_mp.adapter import Adapter\nclass Found(Adapter): ...")
    module = __import__(name)
    assert make(module.Found).adapter == AdapterReference(name, "Found")


def test_a_class_whose_name_means_another_one_goes_by_value(make_module):
    name = make_module("from snakepit_mp.adapter import Adapter\nclass Found(Adapter): ...")
    module = __import__(name)
    old, module.Found = module.Found, None
    assert make(old).adapter.pickled is not None


def test_a_class_that_cannot_be_sent_is_refused():
    module = types.ModuleType("only_here")
    module.held = sys._getframe()
    exec(
        "from snakepit_mp.adapter import Adapter\n"
        "class Unsendable(Adapter):\n"
        "    def start(self):\n"
        "        return held\n",
        vars(module),
    )
    with pytest.raises(ConfigError, match=r"Unsendable .* cannot be sent by value"):
        make(module.Unsendable)


def test_tools_are_known_where_the_class_is_in_hand():
    assert list(make(Mine).known_tools(Mine)) == ["answer"]
    assert make().known_tools(None) == {}
    assert make("a:B").known_tools("a:B") is None


def test_the_environment_of_workers_is_the_applications_with_limits(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.setenv("OWN", "application")
    environment = make(env={"OWN": "workers"}).environment()
    assert environment["OMP_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] == "1"
    assert environment["GRPC_ENABLE_FORK_SUPPORT"] == "0"
    assert environment["OWN"] == "workers"


def test_the_applications_start_method_is_left_open():
    before = multiprocessing.get_start_method(allow_none=True)
    make()
    assert multiprocessing.get_start_method(allow_none=True) == before


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"__spec__": None, "__file__": __file__}, ("init_main_from_path", __file__)),
        ({"__spec__": types.SimpleNamespace(name="a.b")}, ("init_main_from_name", "a.b")),
        ({"__spec__": types.SimpleNamespace(name="a.__main__"), "__file__": __file__}, None),
        ({"__spec__": types.SimpleNamespace(name="__main__"), "__file__": __file__}, None),
        ({"__spec__": None, "__file__": "<stdin>"}, None),
        ({"__spec__": None}, None),
    ],
    ids=["script", "-m module", "-m package", "directory", "standard input", "notebook"],
)
def test_how_the_main_module_is_found_again(monkeypatch, attributes, expected):
    main = types.ModuleType("__main__")
    vars(main).update(attributes)
    monkeypatch.setitem(sys.modules, "__main__", main)
    found = [item for item in make().main.items() if item[0].startswith("init_main")]
    assert found == ([expected] if expected else [])
