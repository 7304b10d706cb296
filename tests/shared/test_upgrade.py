"""Which packages have moved from the versions that constraints.txt pins."""

from importlib.metadata import version

from shared.commands.upgrade import list_moved_packages


def test_a_package_of_another_version_is_listed_and_one_that_is_not_installed_is_not():
    constraints = f"numpy==1.0\nomegaconf=={version('omegaconf')}\nno-such-package==1.0\n"
    assert list_moved_packages(constraints) == [("numpy", "1.0", version("numpy"))]
