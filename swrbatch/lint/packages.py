"""What shell commands do with packages: install, update, upgrade, clean; of the system and of a language."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from .shell import Command

_APT: Final = ("apt-get", "apt", "aptitude")
_RPM: Final = ("yum", "dnf", "microdnf")
SYSTEM: Final = frozenset((*_APT, *_RPM, "apk", "zypper"))
_UPGRADES: Final = frozenset({"upgrade", "dist-upgrade", "full-upgrade", "safe-upgrade"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageCall:
    """A call of a package manager of the system: family apt, rpm, apk or zypper; verb; package names."""

    family: str
    verb: str
    packages: tuple[str, ...]
    command: Command


def package_calls(commands: Iterable[Command] | None) -> list[PackageCall]:
    """The calls of system package managers, in order."""
    found = []
    for command in commands or ():
        if command.name in SYSTEM and command.operands:
            family = "apt" if command.name in _APT else "rpm" if command.name in _RPM else command.name
            operands = _operands(command)
            if operands:
                found.append(PackageCall(family=family, verb=operands[0], packages=operands[1:], command=command))
    return found


def _operands(command: Command) -> tuple[str, ...]:
    """Words that are neither options nor the values of `-o`, `-t` (apt) and `-t`, `--virtual` (apk)."""
    found, skip = [], False
    for word in command.words:
        if skip:
            skip = False
        elif word in ("-o", "-t", "--virtual", "--repository", "-X", "-c"):
            skip = True
        elif not word.startswith("-"):
            found.append(word)
    return tuple(found)


def installs(call: PackageCall) -> bool:
    return bool(call.packages) and call.verb in (("add",) if call.family == "apk" else ("install", "in", "localinstall"))


def upgrades(call: PackageCall) -> bool:
    """Whether everything is upgraded, not a package that is named."""
    if call.command.has("--only-upgrade") or call.packages:
        return False
    if (call.family == "apk" and call.verb == "add") or call.command.has("-s", "--simulate", "--dry-run", "--just-print"):
        return False
    return call.verb in _UPGRADES or (call.family in ("rpm", "zypper") and call.verb in ("update", "up", "dup"))


def bare(package: str) -> str:
    """A package's name without version and architecture."""
    return package.partition("=")[0].partition(":")[0].partition("/")[0]


def language_install(command: Command) -> str:
    """The manager whose dependencies a command installs from a manifest of the project; "" for anything else.

    Packages that are named on the command line do not depend on the source, nor do global ones.
    """
    words = command.operands
    verb = words[0] if words else ""
    if command.name in ("npm", "pnpm"):
        return command.name if verb in ("install", "i", "ci") and len(words) == 1 and not command.has("-g", "--global") else ""
    if command.name == "yarn":
        return "yarn" if verb in ("", "install") and not command.has("--version", "-v") else ""
    if command.name in ("pip", "pip3") and verb == "install":
        return "pip" if command.has("-r", "--requirement") else ""
    known = {"bundle": "install", "composer": "install", "poetry": "install", "pipenv": "install"}
    return command.name if known.get(command.name) == verb and verb and len(words) == 1 else ""


_CLEANED: Final = {
    "apt": ("/var/lib/apt/lists",),
    "rpm": ("/var/cache/yum", "/var/cache/dnf", "/var/cache"),
    "apk": ("/var/cache/apk", "/var/cache"),
    "zypper": ("/var/cache/zypp", "/var/cache"),
}


def cleaned(family: str, commands: Sequence[Command]) -> bool:
    """Whether these commands remove what installs of the family leave behind."""
    for command in commands:
        if command.name == "rm" and any(word.rstrip("/*").startswith(_CLEANED[family]) for word in command.operands):
            return True
        if command.name == "find" and command.has("-delete") and any(word.startswith(_CLEANED[family]) for word in command.words):
            return True
        if family == "rpm" and command.name in _RPM and "clean" in command.operands:
            return True
        if family == "zypper" and command.name == "zypper" and ({"clean", "cc"} & set(command.operands)):
            return True
    return False
