"""Values for systemd units, as hypothesis makes them: all that a unit can hold, often what systemd would expand."""

from hypothesis import strategies as st

from tests.unit.roles import plugin

unit_text = plugin("filter", "unit_text")

_TRICKY = st.text(alphabet="%$\\\"'{}()[];#@-:+!|=~, hnEa0", max_size=12)
values = (_TRICKY | st.text(max_size=12)).filter(lambda text: not unit_text.unit_faults({"x": text}))
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
