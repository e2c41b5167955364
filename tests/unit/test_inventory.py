import pytest

from zorac_deploy import inventory
from zorac_deploy.errors import InventoryError, UnknownProfile


def written(tmp_path, text, name="inventory.yml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_the_shipped_profiles():
    assert inventory.profiles() == ["headless", "display", "cpu"]


def test_a_host_gets_its_profile_and_the_way_to_it(tmp_path):
    source = written(
        tmp_path,
        """
        display:
          hosts:
            tower: {ansible_host: 192.0.2.7, ansible_user: me, ansible_port: 2222, ansible_ssh_common_args: -o A=b}
        """,
    )
    target = inventory.read([source]).target(None)
    assert target == inventory.Target("tower", "display", "192.0.2.7", 2222, "me", None, ("-o", "A=b"))


def test_an_ini_inventory_is_read_too(tmp_path):
    source = written(tmp_path, "[headless]\nrig ansible_host=192.0.2.8\n", "hosts.ini")
    assert inventory.read([source]).target("rig").profile == "headless"


@pytest.mark.parametrize("text", ["headless: [", "just words", "- a\n- list\n", ""])
def test_what_is_no_inventory_is_refused(tmp_path, text):
    with pytest.raises(InventoryError, match="inventory"):
        inventory.read([written(tmp_path, text)])


def test_a_missing_inventory_is_refused(tmp_path):
    with pytest.raises(InventoryError, match="there is no inventory"):
        inventory.read([tmp_path / "none.yml"])


def test_a_host_without_a_profile_is_refused(tmp_path):
    with pytest.raises(UnknownProfile, match="tower belongs to no profile"):
        inventory.read([written(tmp_path, "turbo:\n  hosts:\n    tower:\n")])


def test_a_host_in_two_profiles_is_refused(tmp_path):
    text = "headless:\n  hosts:\n    tower:\ndisplay:\n  hosts:\n    tower:\n"
    with pytest.raises(InventoryError, match="two profiles"):
        inventory.read([written(tmp_path, text)])


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [("ansible_host: '{{ a }}'", "is a template"), ("ansible_port: ssh", "Set it to a number")],
)
def test_what_is_needed_early_must_be_plain(tmp_path, variables, complaint):
    text = f"headless:\n  hosts:\n    tower: {{{variables}}}\n"
    with pytest.raises(InventoryError, match=complaint):
        inventory.read([written(tmp_path, text)])


def test_the_host_must_be_named_where_there_are_several(tmp_path):
    found = inventory.read([written(tmp_path, "headless:\n  hosts:\n    one:\n    two:\n")])
    with pytest.raises(InventoryError, match="which host"):
        found.target(None)
    with pytest.raises(InventoryError, match="no host three"):
        found.target("three")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("me@192.0.2.9", inventory.Target("192.0.2.9", "headless", "192.0.2.9", None, "me")),
        ("me@box:2222", inventory.Target("box", "headless", "box", 2222, "me")),
        ("box", inventory.Target("box", "headless", "box")),
        ("me@127.0.0.1:22", inventory.Target("loopback", "headless", "127.0.0.1", 22, "me")),
        ("localhost", inventory.Target("localhost", "headless", "localhost", local=True)),
    ],
)
def test_one_host_without_an_inventory(tmp_path, address, expected):
    source = written(tmp_path, inventory.one_host(address, "headless", {}))
    assert inventory.read([source]).target(None) == expected


@pytest.mark.parametrize("address", ["", "me@", "me@box:ssh", "-oProxyCommand=x", "me@box name", "box\n"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InventoryError, match="is not a host"):
        inventory.one_host(address, "headless", {})


def test_an_unknown_profile_is_refused():
    with pytest.raises(UnknownProfile, match="Choose one of: headless, display, cpu"):
        inventory.one_host("me@box", "turbo", {})
