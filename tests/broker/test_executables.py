"""How the programs of a private node are found."""

from __future__ import annotations

from mousetrap.broker import executables


def test_local_prefers_the_real_script_to_a_wrapper(path, tmp_path):
    """Debian's and conda's wrappers change user or folder; the real script is next to them."""
    path("rabbitmq-script-wrapper")
    path("rabbitmq-env")
    wrapper = tmp_path / "sbin" / "rabbitmq-server"
    wrapper.parent.mkdir()
    wrapper.symlink_to(tmp_path / "bin" / "rabbitmq-script-wrapper")
    executables.EXTRA_FOLDERS = (str(wrapper.parent),)

    assert executables.find_server() == wrapper  # no real one there yet
    path("rabbitmq-server")
    assert executables.find_server() == tmp_path / "bin" / "rabbitmq-server"
