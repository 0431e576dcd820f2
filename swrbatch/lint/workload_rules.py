"""The rules on Kubernetes workloads (guide 9.4.1): the login that pulling an image of the registry needs."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from ..errors import printable
from ..policy import split_name
from .rule import CHAPTERS, Hit, Level, workload_rule
from .workload import Container, Place, PodSpec, WorkloadFile

SECRET: Final = "default-secret"
"""The secret that the cloud's clusters keep for their registry; the guide: the name is fixed."""
HOSTS: Final = ("swr.*.myhuaweicloud.com",)
"""The registries of the service, as globs."""
_SECTION: Final = f"9.4.1 {CHAPTERS['9.4.1'][1]}"
_HEAD: Final = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: nginx\nspec:\n  template:\n    spec:\n"
_IMAGE: Final = "      containers:\n        - name: nginx\n          image: swr.cn-north-1.myhuaweicloud.com/team/nginx:1.27\n"
_GOOD: Final = f"{_HEAD}{_IMAGE}      imagePullSecrets:\n        - name: default-secret\n"


def _hit(place: Place, **params: object) -> Hit:
    clean = {key: printable(value, 120) for key, value in params.items()}
    return Hit(line=place.line, end_line=place.line, params=MappingProxyType(clean))


def of_registry(container: Container, registries: tuple[str, ...]) -> bool:
    """Whether a container's image is of one of these registries (globs)."""
    host = split_name(container.image.text.partition("@")[0])[0].lower()
    return any(fnmatch.fnmatchcase(host, pattern.lower()) for pattern in registries)


def _pods(file: WorkloadFile) -> Iterator[tuple[PodSpec, list[Container]]]:
    """The pods with images of the registries, and the containers that have them."""
    for pod in file.pods:
        ours = [container for container in pod.containers if of_registry(container, file.registries)]
        if ours:
            yield pod, ours


def _supplied(file: WorkloadFile, pod: PodSpec) -> tuple[str, ...]:
    """What the pod's ServiceAccount brings, if one of the files has it."""
    return file.accounts.get((pod.namespace, pod.account), ())


@workload_rule(
    "manifest-syntax", "", Level.ERROR,
    ("the manifest cannot be read: {fault}", "清单文件无法解析：{fault}"),
    ("correct it; of a template (Helm) lint what it renders: helm template . > FILE.yaml", "请修改；模板文件（Helm）请先渲染再检查：helm template . > 文件.yaml"),
    bad="kind: Deployment\nspec: [\n",
    good=_GOOD,
)  # fmt: skip
def manifest_syntax(file: WorkloadFile) -> Iterator[Hit]:
    for fault in file.faults:
        found = _hit(fault, fault=fault.text)
        # A template is no YAML before it is rendered; nothing can be said of it.
        template = "{{" in file.text
        yield Hit(line=found.line, end_line=found.end_line, params=found.params, level=Level.INFO if template else None)


@workload_rule(
    "missing-pull-secret", _SECTION, Level.WARNING,
    ("{pod} pulls {image} and has no imagePullSecrets: a private image is refused as not logged in", "{pod}拉取{image}，但没有imagePullSecrets：拉取私有镜像时会提示“未登录”"),
    ("add to the pod's spec, beside containers: imagePullSecrets: [{{name: default-secret}}]", "在Pod的spec中、与containers同级添加：imagePullSecrets: [{{name: default-secret}}]"),
    bad=_HEAD + _IMAGE,
    good=_GOOD,
)  # fmt: skip
def missing_pull_secret(file: WorkloadFile) -> Iterator[Hit]:
    for pod, ours in _pods(file):
        if not pod.secrets and not _supplied(file, pod) and not any(container.secrets for container in pod.containers):
            yield _hit(ours[0].image, pod=pod, image=ours[0].image.text)


@workload_rule(
    "other-pull-secret", _SECTION, Level.WARNING,
    ("{pod} pulls {image} with the secret {names}: for this registry the name is fixed, default-secret", "{pod}使用密钥{names}拉取{image}：该镜像仓库的密钥名称固定为default-secret"),
    ("name default-secret under imagePullSecrets; others may stand beside it", "在imagePullSecrets中使用default-secret；可同时保留其他密钥"),
    bad=f"{_HEAD}{_IMAGE}      imagePullSecrets:\n        - name: my-secret\n",
    good=_GOOD,
)  # fmt: skip
def other_pull_secret(file: WorkloadFile) -> Iterator[Hit]:
    for pod, ours in _pods(file):
        # What the ServiceAccount has is used only where the pod names nothing.
        names = [secret.text for secret in pod.secrets or ()] or list(_supplied(file, pod))
        if names and SECRET not in names and not any("{{" in name or "$" in name for name in names):
            place = pod.secrets[0] if pod.secrets else ours[0].image
            yield _hit(place, pod=pod, image=ours[0].image.text, names=", ".join(names))


@workload_rule(
    "misplaced-pull-secret", _SECTION, Level.ERROR,
    ("imagePullSecrets stands in the container {container} of {pod}, where it has no effect (the guide's example has it there by mistake)",
     "imagePullSecrets写在{pod}的容器{container}中，不会生效（指南示例中的位置有误）"),
    ("move it out of containers, into the pod's spec", "将其移出containers，放到Pod的spec中"),
    bad=f"{_HEAD}{_IMAGE}          imagePullSecrets:\n            - name: default-secret\n",
    good=_GOOD,
)  # fmt: skip
def misplaced_pull_secret(file: WorkloadFile) -> Iterator[Hit]:
    for pod, _ in _pods(file):
        for container in pod.containers:
            if container.secrets is not None:
                yield _hit(container.secrets, pod=pod, container=container.name or "-")


RULES: Final = (manifest_syntax, missing_pull_secret, other_pull_secret, misplaced_pull_secret)
