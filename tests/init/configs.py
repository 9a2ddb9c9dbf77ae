"""Configurations by the behaviour that each is about: one golden file for each of them and IP version."""

from __future__ import annotations

from init import config as reading
from init.config import InboundMode, InterceptionConfig


def ports(text: str) -> reading.Ports:
    return reading.parse_ports("--ports", text)


def networks(text: str) -> reading.Networks:
    return reading.parse_networks("--networks", text)


def ids(text: str) -> reading.Ids:
    return reading.parse_ids("--ids", text)


def users(text: str) -> tuple[reading.PortsOfUsers, ...]:
    return reading.parse_ports_of_users("--users", text)


CONFIGS: dict[str, InterceptionConfig] = {
    "defaults": InterceptionConfig(),
    "exclude-inbound-ports": InterceptionConfig(exclude_inbound_ports=ports("22,8000-8100")),
    "exclude-inbound-metrics-again": InterceptionConfig(exclude_inbound_ports=ports("15090,9090")),
    "include-inbound-ports": InterceptionConfig(include_inbound_ports=ports("80,443,8000:9000")),
    "include-and-exclude-inbound-ports": InterceptionConfig(
        include_inbound_ports=ports("1-65535"), exclude_inbound_ports=ports("22")
    ),
    "no-inbound": InterceptionConfig(include_inbound_ports=()),
    "exclude-outbound-ports": InterceptionConfig(exclude_outbound_ports=ports("53,3306-3310")),
    "exclude-outbound-ports-of-the-self-test": InterceptionConfig(exclude_outbound_ports=ports("15000-15100")),
    "include-outbound-ports-only": InterceptionConfig(
        include_outbound_ports=ports("80,8080-8089"), include_outbound_cidrs=()
    ),
    "include-outbound-cidrs": InterceptionConfig(
        include_outbound_cidrs=networks("10.0.0.0/8,172.16.0.0/12,fd00::/8,2001:db8::/32")
    ),
    "include-outbound-ports-and-cidrs": InterceptionConfig(
        include_outbound_ports=ports("443"), include_outbound_cidrs=networks("10.0.0.0/8,fd00::/8")
    ),
    "include-every-outbound-port": InterceptionConfig(include_outbound_ports=None, include_outbound_cidrs=()),
    "include-networks-of-every-address": InterceptionConfig(include_outbound_cidrs=networks("0.0.0.0/0,::/0")),
    "no-outbound": InterceptionConfig(include_outbound_cidrs=()),
    "exclude-outbound-cidrs": InterceptionConfig(
        exclude_outbound_cidrs=networks("169.254.169.254,192.0.2.0/24,fd00:ec2::254,::ffff:192.0.2.0/120")
    ),
    "exclude-interfaces": InterceptionConfig(exclude_interfaces=("eth1", "veth+")),
    "other-sidecar-user": InterceptionConfig(proxy_uid=3000, proxy_gid=3001),
    "other-sidecar-ports": InterceptionConfig(outbound_port=16001, inbound_port=16006),
    "drop-invalid": InterceptionConfig(drop_invalid=True),
    "drop-invalid-but-not-on-an-interface": InterceptionConfig(drop_invalid=True, exclude_interfaces=("net1",)),
    "include-inbound-sources": InterceptionConfig(include_inbound_sources=networks("10.0.0.0/8,fd00::/8")),
    "exclude-inbound-sources": InterceptionConfig(
        exclude_inbound_sources=networks("10.9.0.0/16,169.254.1.1,fd00:9::/32")
    ),
    "include-and-exclude-inbound-sources": InterceptionConfig(
        include_inbound_sources=networks("10.0.0.0/8,fd00::/8"), exclude_inbound_sources=networks("10.0.0.1,fd00::1")
    ),
    "include-inbound-ports-and-sources": InterceptionConfig(
        include_inbound_ports=ports("80,8000-8100"),
        include_inbound_sources=networks("10.0.0.0/8,10.64.0.0/10,fd00::/8"),
    ),
    "include-inbound-sources-of-one-family": InterceptionConfig(include_inbound_sources=networks("10.0.0.0/8")),
    "include-uids": InterceptionConfig(include_uids=ids("1000,2000-2999")),
    "include-gids": InterceptionConfig(include_gids=ids("1000")),
    "include-uids-and-gids": InterceptionConfig(include_uids=ids("0,1000"), include_gids=ids("3000-3010")),
    "include-uids-for-some-networks": InterceptionConfig(
        include_uids=ids("1000"),
        include_outbound_cidrs=networks("10.0.0.0/8,fd00::/8"),
        exclude_outbound_cidrs=networks("10.1.0.0/16"),
    ),
    "exclude-uids": InterceptionConfig(exclude_uids=ids("0,1000-1999")),
    "exclude-gids": InterceptionConfig(exclude_gids=ids("101")),
    "include-and-exclude-uids": InterceptionConfig(include_uids=ids("1000-1999"), exclude_uids=ids("1500")),
    "exclude-outbound-ports-for-uids": InterceptionConfig(
        exclude_outbound_ports_for_uids=users("1000:25,465-587;2000-2010:9092")
    ),
    "include-interfaces": InterceptionConfig(include_interfaces=("eth0", "net+")),
    "include-and-exclude-interfaces": InterceptionConfig(include_interfaces=("eth+",), exclude_interfaces=("eth1",)),
    "include-interfaces-and-drop-invalid": InterceptionConfig(include_interfaces=("eth0",), drop_invalid=True),
    "dns": InterceptionConfig(dns_port=15053),
    "dns-for-another-sidecar-user": InterceptionConfig(dns_port=5353, proxy_uid=3000, proxy_gid=3001),
    "dns-for-some-users": InterceptionConfig(dns_port=15053, include_uids=ids("1000")),
    "dns-but-nothing-else-outbound": InterceptionConfig(dns_port=15053, include_outbound_cidrs=()),
    "dns-with-port-53-excluded": InterceptionConfig(dns_port=15053, exclude_outbound_ports=ports("53")),
    "tproxy": InterceptionConfig(inbound_mode=InboundMode.TPROXY),
    "tproxy-include-inbound-ports": InterceptionConfig(
        inbound_mode=InboundMode.TPROXY, include_inbound_ports=ports("80,8000-8100")
    ),
    "tproxy-exclude-inbound-ports": InterceptionConfig(
        inbound_mode=InboundMode.TPROXY, exclude_inbound_ports=ports("22,15020-15021")
    ),
    "tproxy-include-and-exclude-inbound-sources": InterceptionConfig(
        inbound_mode=InboundMode.TPROXY,
        include_inbound_sources=networks("10.0.0.0/8,fd00::/8"),
        exclude_inbound_sources=networks("10.0.0.1,fd00::1"),
    ),
    "tproxy-on-some-interfaces": InterceptionConfig(
        inbound_mode=InboundMode.TPROXY, include_interfaces=("eth0", "net1"), exclude_interfaces=("net1",)
    ),
    "tproxy-drop-invalid": InterceptionConfig(inbound_mode=InboundMode.TPROXY, drop_invalid=True),
    "tproxy-other-sidecar": InterceptionConfig(
        inbound_mode=InboundMode.TPROXY, inbound_port=16006, proxy_uid=3000, proxy_gid=3001
    ),
    "tproxy-and-dns": InterceptionConfig(inbound_mode=InboundMode.TPROXY, dns_port=15053),
    "no-inbound-and-no-outbound": InterceptionConfig(include_inbound_ports=(), include_outbound_cidrs=()),
    "everything-at-once": InterceptionConfig(
        include_inbound_ports=ports("80,8000-8100"),
        exclude_inbound_ports=ports("8001,15090"),
        include_outbound_ports=ports("443"),
        exclude_outbound_ports=ports("25,465-587"),
        include_outbound_cidrs=networks("10.0.0.0/8,fd00::/8"),
        exclude_outbound_cidrs=networks("10.1.0.0/16,fd00:1::/32"),
        exclude_interfaces=("eth1",),
        proxy_uid=1500,
        proxy_gid=1501,
        drop_invalid=True,
    ),
    "everything-at-once-by-tproxy": InterceptionConfig(
        include_inbound_ports=ports("80,8000-8100"),
        exclude_inbound_ports=ports("8001"),
        include_inbound_sources=networks("10.0.0.0/8,fd00::/8"),
        exclude_inbound_sources=networks("10.0.0.1,fd00::1"),
        include_outbound_ports=ports("443"),
        exclude_outbound_ports=ports("25"),
        include_outbound_cidrs=networks("10.0.0.0/8,fd00::/8"),
        exclude_outbound_cidrs=networks("10.1.0.0/16,fd00:1::/32"),
        include_uids=ids("1000-1999"),
        include_gids=ids("1000"),
        exclude_uids=ids("1500"),
        exclude_gids=ids("101"),
        exclude_outbound_ports_for_uids=users("1001:9092"),
        include_interfaces=("eth0", "eth1"),
        exclude_interfaces=("eth1",),
        inbound_mode=InboundMode.TPROXY,
        dns_port=15053,
        drop_invalid=True,
    ),
}
