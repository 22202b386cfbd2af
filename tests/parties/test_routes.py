"""The addresses that engines are told behind a tunnel."""

import pytest

from mpcc.runtime.parties.routes import mp_spdz_routes, ports_needed, socket_path, split_address, spu_hosts, spu_routes


def test_mp_spdz_connects_to_the_players_before_it():
    routes = mp_spdz_routes(2, 3, [5000, 5001, 5002])
    assert routes.engine == "127.0.0.1:5000"
    assert routes.ends == {0: "127.0.0.1:5001", 1: "127.0.0.1:5002"}
    assert routes.hosts == ("127.0.0.1:5001", "127.0.0.1:5002", "127.0.0.1:5000")


def test_mp_spdz_waits_for_those_after_it():
    routes = mp_spdz_routes(0, 3, [5000])
    assert routes.ends == {} and routes.hosts == ("127.0.0.1:5000", "127.0.0.1:9", "127.0.0.1:9")


def test_spu_connects_to_all_others():
    routes = spu_routes(1, 3)
    assert routes.hosts == ("unix:to-0.sock", "unix:engine.sock", "unix:to-2.sock")
    assert set(routes.ends) == {0, 2} and routes.engine == routes.hosts[1]


def test_spu_on_one_machine():
    """The same addresses for everybody, from everybody's folder."""
    assert spu_hosts(("client", "provider")) == ("unix:../client/engine.sock", "unix:../provider/engine.sock")


@pytest.mark.parametrize("players", [2, 3, 4])
def test_every_address_is_local_and_there_once(players):
    for player in range(players):
        for routes in (mp_spdz_routes(player, players, range(6000, 6010)), spu_routes(player, players)):
            used = [routes.engine, *routes.ends.values()]
            assert len(set(used)) == len(used) and set(used) <= set(routes.hosts) and len(routes.hosts) == players
            assert all(socket_path(a) or split_address(a)[0] == "127.0.0.1" for a in routes.hosts)
        assert ports_needed(player) == len(mp_spdz_routes(player, players, range(6000, 6010)).ends) + 1
