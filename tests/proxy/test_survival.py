"""How the sidecar survives, in its smallest numbers: `make survive` runs the same tests with large ones.

See tests/survival/ for what each of them is about. Left out are those that measure, and what test_stress.py
and tests/proxy/tunnels/ have already.
"""

# ruff: noqa: F401  # pytest finds what is imported here

from __future__ import annotations

import pytest

from tests.survival.fixtures import folders, many_descriptors, mesh, needs_root, saw
from tests.survival.test_death import (
    test_a_sidecar_that_is_killed_is_a_reset_for_both_applications,
    test_an_inbound_sidecar_that_is_replaced_under_load_fails_no_request,
)
from tests.survival.test_disk_and_clock import (
    test_a_clock_that_jumps_breaks_no_connection_and_when_it_is_right_again_so_is_everything,
    test_a_disk_without_room_costs_lines_of_the_log_and_no_request,
)
from tests.survival.test_leaks import (
    test_a_sidecar_that_has_no_descriptors_left_goes_on_when_some_are_free_again,
    test_idle_connections_cost_little_and_work_when_they_are_used,
    test_short_connections_leave_nothing_behind,
    test_whatever_ends_is_freed_at_once_and_does_not_wait_for_the_garbage_collector,
)
from tests.survival.test_renewals import (
    test_a_file_that_is_broken_in_any_way_changes_nothing_until_it_is_whole_again,
    test_certificates_and_revocation_lists_replaced_all_the_time_cost_no_request,
    test_policies_replaced_all_the_time_cost_no_request,
)
from tests.survival.test_strangers import (
    test_thousands_who_connect_and_vanish_cost_nothing_afterwards,
    test_whoever_is_slow_in_the_handshake_is_given_up_at_every_stage_and_nobody_waits_for_it,
)
from tests.survival.test_streams import (
    test_a_reset_of_either_application_is_a_reset_for_the_other,
    test_an_application_that_never_reads_costs_a_bounded_amount_and_nobody_else_waits,
    test_both_ends_may_close_at_the_same_moment,
    test_one_byte_writes_arrive_one_after_the_other,
)
from tests.survival.test_vanishing import (
    in_pods,
    test_a_peer_that_is_gone_for_good_is_a_reset_for_both_applications_and_when_it_is_back_so_is_the_service,
    test_a_short_outage_is_not_even_noticed,
)


@pytest.fixture
def amount():
    """How many of something: the least that still means something."""

    def least(_full: int, *, short: int) -> int:
        return short

    return least
