"""Programs that know nothing of a mesh: databases whose client, or whose server, speaks first, and bulk."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.cluster import cluster
from tests.cluster.conftest import Shop
from tests.cluster.workloads import Running, Workload, answered, start

_POSTGRES = """\
initdb --pgdata=/tmp/data --auth=trust --username=app >/dev/null &&
echo 'host all all all trust' >>/tmp/data/pg_hba.conf &&
exec postgres -D /tmp/data -c listen_addresses='*' -c unix_socket_directories=/tmp
"""
_MARIADB = """\
mariadb-install-db --datadir=/tmp/data --auth-root-authentication-method=normal >/dev/null &&
printf "%s;\\n" "CREATE DATABASE shop" "CREATE USER app" "GRANT ALL ON shop.* TO app" >/tmp/init.sql &&
exec mariadbd --datadir=/tmp/data --socket=/tmp/s --pid-file=/tmp/p --bind-address=0.0.0.0 --init-file=/tmp/init.sql
"""


def test_redis_works_unmodified(shop: Shop, namespace: str, saw: Callable[[str], None]) -> None:
    command = ["redis-server", "--save", "", "--dir", "/tmp", "--protected-mode", "no"]  # in a container
    redis, client = start(namespace, Workload(name="redis", command=command, port=6379), Workload(name="client"))
    answered(client, "redis-cli", "-h", redis.address, "PING")

    benchmark = client.run("redis-benchmark", "-h", redis.address, "-n", "2000", "-c", "8", "-t", "set,get", "--csv")

    assert int(answered(client, "redis-cli", "-h", redis.address, "DBSIZE")) >= 1
    assert_in_the_mesh(redis, namespace)
    saw(f"PONG; 4000 requests by 8 clients: {'; '.join(benchmark.splitlines()[1:])}")


def test_postgresql_works_unmodified(namespace: str, saw: Callable[[str], None]) -> None:
    server = Workload(name="postgres", command=["sh", "-c", _POSTGRES], port=5432)
    postgres, client = start(namespace, server, Workload(name="client"))
    psql = ("psql", "-h", postgres.address, "-U", "app", "-d", "postgres", "-At", "-c")
    answered(client, *psql, "SELECT 1")

    client.run(*psql, "CREATE TABLE t AS SELECT generate_series(1, 100000) AS n")
    total = client.run(*psql, "SELECT sum(n) FROM t").strip()
    rows = client.run(*psql, "SELECT n FROM t").split()

    assert total == "5000050000"
    assert len(rows) == 100000
    assert_in_the_mesh(postgres, namespace)
    saw(f"{client.run(*psql, 'SHOW server_version').strip()}: sum {total}, {len(rows)} rows read")


def test_mariadb_whose_server_speaks_first_works_unmodified(namespace: str, saw: Callable[[str], None]) -> None:
    server = Workload(name="mariadb", command=["sh", "-c", _MARIADB], port=3306)
    mariadb, client = start(namespace, server, Workload(name="client"))
    sql = ("mariadb", "-h", mariadb.address, "-u", "app", "--skip-ssl", "-N", "shop", "-e")
    answered(client, *sql, "SELECT 1")

    client.run(*sql, "CREATE TABLE t (n INT); INSERT INTO t SELECT seq FROM seq_1_to_10000")
    total = client.run(*sql, "SELECT SUM(n) FROM t").strip()

    assert total == "50005000"
    assert_in_the_mesh(mariadb, namespace)
    saw(f"{client.run(*sql, 'SELECT VERSION()').strip()}: sum {total}")


def test_iperf3_moves_bulk_with_and_without_the_mesh(namespace: str, outside: str, saw: Callable[[str], None]) -> None:
    figures = []
    for where in (namespace, outside):
        server, client = start(
            where, Workload(name="iperf", command=["iperf3", "--server"], port=5201), Workload(name="client")
        )
        words = ("iperf3", "--json", "--time", "5", "--client", server.address)
        report = json.loads(answered(client, *words))["end"]["sum_received"]
        assert report["bytes"] > 0
        figures.append(report["bits_per_second"] / 1e9)
        if where == namespace:
            assert_in_the_mesh(server, namespace)
    with_mesh, without = figures
    saw(f"{with_mesh:.2f} Gbit/s through two sidecars of 500m CPU, {without:.2f} Gbit/s without")


def assert_in_the_mesh(server: Running, namespace: str) -> None:
    """The server's sidecar has seen its client by name."""
    expected = f"spiffe://cluster.local/ns/{namespace}/sa/client"
    seen = [one["peer_identity"] for one in server.access_log() if one["event"] in ("handshake", "connection")]
    assert expected in seen, cluster.diagnosis(namespace)
