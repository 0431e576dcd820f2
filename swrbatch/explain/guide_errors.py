"""The errors that the guide's chapter 9 names: what is seen, why, and what to do.

The Chinese is the guide's, shortened; the English says the same. Where the guide is silent or out of date a sentence says so:
"(Not in the guide.)". `{}` in a phrase stands for what differs each time (host, address, name).
"""

from __future__ import annotations

from functools import partial
from typing import Final

from ..errors import Severity
from .entry import Entry

_error: Final = partial(Entry, kind="docker", level=Severity.ERROR.value)

# Lines that begin with blanks are shown as they stand.
_INSECURE: Final = (
    "CentOS, /etc/docker/daemon.json:\n"
    '    {"insecure-registries": ["REGISTRY"]}\n'
    "Ubuntu, /etc/default/docker:\n"
    '    DOCKER_OPTS="--insecure-registry REGISTRY"\n'
    "EulerOS, /etc/sysconfig/docker:\n"
    "    INSECURE_REGISTRY='--insecure-registry REGISTRY'\n"
)
_LOGIN: Final = (
    "Get a login command again: the console's page My Images, Client Upload (a temporary one holds 24 hours), or a long-term one from "
    "valid AK and SK: swrbatch login-command."
)
_LOGIN_ZH: Final = (
    "请重新获取登录指令：登录容器镜像服务控制台，选择“我的镜像”，单击“客户端上传”（临时登录指令24小时后失效）；"
    "或用有效的AK/SK生成长期有效的登录指令：swrbatch login-command。"
)

GUIDE_ERRORS: Final[tuple[Entry, ...]] = (
    _error(
        id="docker-not-found",
        section="9.3.1",
        symptom=("docker login fails: docker: command not found", "登录指令执行失败：docker: command not found"),
        cause=("The container engine is not installed, or not correctly.", "容器引擎未安装正确。"),
        way_out=(
            "Install the container engine again. SWR takes uploads from 1.11.2 and newer; installing needs the internet, so a server of an "
            "internal network needs an elastic IP first.",
            "请重新安装容器引擎。SWR支持1.11.2及以上版本的容器引擎上传镜像；安装需要连接互联网，内网服务器需要绑定弹性IP后才能访问。",
        ),
        phrases=("docker: command not found", "docker: not found", "command not found: docker"),
        related=("docker-version-old", "docker-too-old"),
    ),
    _error(
        id="unauthorized",
        section="9.3.1",
        symptom=(
            "docker login fails: unauthorized: authentication required",
            "登录指令执行失败：unauthorized: authentication required",
        ),
        cause=(
            "The temporary login command has expired, or the project of the region, the AK or the login key in it is wrong.",
            "临时登录指令已过期，或登录指令中区域项目名称、AK、登录密钥错误。",
        ),
        way_out=(_LOGIN, _LOGIN_ZH),
        phrases=(
            "unauthorized: authentication required",
            "unauthorized",
            "401 unauthorized",
            "no basic auth credentials",
            "incorrect username or password",
        ),
        context=("docker login", "login"),
        related=("SVCSTG.SWR.4010000", "SVCSTG.SWR.4000031", "cce-not-logged-in"),
    ),
    _error(
        id="registry-not-found",
        section="9.3.1",
        symptom=(
            "docker login fails: Error logging in to v2 endpoint, trying next endpoint: Get https://ENDPOINT/v2/: dial tcp: lookup "
            "ENDPOINT on ADDRESS:53: no such host",
            "登录指令执行失败：Error logging in to v2 endpoint, trying next endpoint: Get https://ENDPOINT/v2/: dial tcp: lookup "
            "ENDPOINT on ADDRESS:53: no such host",
        ),
        cause=("The address of the registry in the login command is wrong.", "登录指令中镜像仓库地址错误。"),
        way_out=(
            "Correct the address of the registry in the login command. " + _LOGIN,
            "请修改登录指令中的镜像仓库地址。" + _LOGIN_ZH,
        ),
        phrases=(
            "dial tcp: lookup {} no such host",
            "error logging in to v2 endpoint, trying next endpoint",
            "no such host",
        ),
        context=("docker login", "/v2/"),
        related=("registry-invalid", "registry-mismatch"),
    ),
    _error(
        id="certificate-expired",
        section="9.3.1",
        symptom=(
            "docker login fails: x509: certificate has expired or is not yet valid",
            "登录指令执行失败：x509: certificate has expired or is not yet valid",
        ),
        cause=(
            "The AK/SK in the long-term login command was deleted. (Not in the guide: the clock of the machine may be wrong.)",
            "长期有效登录指令中AK/SK被删除。（指南未提及：也可能是机器时间不正确。）",
        ),
        way_out=(
            "Make the login command from a valid AK and SK: swrbatch login-command. Then compare the machine's clock (date -u).",
            "请使用有效的AK/SK生成登录指令：swrbatch login-command。另请检查机器时间（date -u）。",
        ),
        phrases=("x509: certificate has expired or is not yet valid", "certificate has expired"),
        context=("docker login",),
    ),
    _error(
        id="login-unknown-authority",
        section="9.3.1",
        symptom=(
            "docker login fails: x509: certificate signed by unknown authority",
            "登录指令执行失败：x509: certificate signed by unknown authority",
        ),
        cause=(
            "The client checks the certificate of the registry (HTTPS), which no authority that the client knows has signed.",
            "容器引擎客户端和SWR之间使用HTTPS通信，客户端会校验服务端的证书；服务端证书不是权威机构颁发的。",
        ),
        way_out=(
            "If you trust the server, let the engine do without the check, then restart it (systemctl restart docker). REGISTRY is a host "
            "name or an IP:\n"
            + _INSECURE
            + "(Not in the guide: safer is to add its CA, as /etc/docker/certs.d/REGISTRY/ca.crt.)",
            "如果信赖服务端、跳过证书认证，请配置容器引擎的启动参数并重启（systemctl restart docker），REGISTRY为镜像仓库地址，支持域名和IP形式：\n"
            + _INSECURE
            + "（指南未提及：更安全的做法是将CA证书放入/etc/docker/certs.d/REGISTRY/ca.crt。）",
        ),
        phrases=("x509: certificate signed by unknown authority", "certificate signed by unknown authority"),
        context=("docker login", "logging in", "login"),
        related=("pull-unknown-authority",),
    ),
    _error(
        id="push-denied",
        section="9.3.2",
        symptom=(
            "docker push fails: denied: you do not have the permission",
            "使用客户端上传镜像失败：denied: you do not have the permission",
        ),
        cause=(
            "The name of the organization belongs to somebody else, or you have as many organizations as the quota allows (5 a user); or the "
            "login command is that of an IAM user without a permission in the organization.",
            "该组织名已被其他用户注册，或当前SWR组织数量已超过配额；或docker login命令使用IAM用户的AK、SK生成，没有对应组织的权限。",
        ),
        way_out=(
            "Name taken: create an organization first, then upload into it. Quota: upload into an organization that exists. No permission: "
            "let the account give it (swrbatch grant set), then push.",
            "组织名已被注册：建议先创建组织然后再上传镜像。超过配额：单个用户的组织数量限制为5个，可以将镜像上传到已存在的组织下。"
            "没有权限：使用账号授权后（swrbatch grant set），可以正常推送。",
        ),
        phrases=(
            "denied: you do not have the permission",
            "you do not have the permission",
            "requested access to the resource is denied",
        ),
        context=("docker push", "push"),
        related=("permission-denied", "organization-taken", "organization-quota", "SVCSTG.SWR.4039002", "SVCSTG.SWR.4011044"),
    ),
    _error(
        id="local-tag-missing",
        section="9.3.2",
        symptom=(
            "docker push fails: tag does not exist: NAME, or An image does not exist locally with the tag: NAME",
            "使用客户端上传镜像失败：tag does not exist: NAME 或 An image does not exist locally with the tag: NAME",
        ),
        cause=("The image, or the tag, that is to be uploaded does not exist on this machine.", "上传的镜像或镜像版本不存在。"),
        way_out=(
            "Look at the local images (docker images) for name and tag, and push again.",
            "请通过docker images查看本地镜像，确认要上传的镜像名称及版本后，重新上传镜像。",
        ),
        phrases=("tag does not exist", "an image does not exist locally with the tag"),
        context=("docker push", "push"),
        related=("tag-unknown", "SVCSTG.SWR.4040115"),
    ),
    _error(
        id="name-invalid",
        section="9.3.2",
        symptom=(
            "docker push fails: name invalid: 'repository' is invalid",
            "使用客户端上传镜像失败：name invalid: 'repository' is invalid",
        ),
        cause=("The name of the organization or of the image breaks the naming rule.", "组织命名或镜像命名不规范。"),
        way_out=(
            "Name them by the rule and push again. Organization: 1 to 64 of lower-case letters and digits, a letter first; image: 1 to 128 of "
            "lower-case letters and digits; in both, parts may be joined by _ or __ or hyphens, but neither begin nor end with them.",
            "请按命名规范重新指定组织和镜像名称后上传。组织名称：1-64个字符，小写字母开头，由小写字母、数字组成；镜像名称：1-128个字符，"
            "由小写字母、数字组成；二者均可用_、__或中划线连接，但不能以其开头或结尾。",
        ),
        phrases=("name invalid: repository is invalid", "name invalid", "invalid reference format"),
        context=("docker push", "push", "invalid repository name"),
        related=("namespace-invalid", "repository-invalid", "SVCSTG.SWR.4001028", "SVCSTG.SWR.4001029"),
    ),
    _error(
        id="page-format",
        section="9.3.3",
        symptom=(
            "An upload by the page fails: the format of the image is invalid (镜像格式不合法)",
            "通过页面上传镜像，出现“镜像格式不合法”的报错",
        ),
        cause=(
            "The address of the image is wrong. It is REGISTRY/ORGANIZATION/NAME:TAG; only the tag may be left out (then it is latest), and "
            "nothing may be added.",
            "镜像地址不规范。镜像地址为“镜像仓库地址/组织名称/镜像名称:版本号”，版本号可省略（表示latest），其余部分均不可省略，且不可多余。",
        ),
        way_out=(
            "Look at RepoTags in manifest.json of the archive (swrbatch check shows it); tag the image by the rule, save it again with docker "
            "save, and upload that.",
            "请查看压缩包中manifest.json文件RepoTags字段的值（swrbatch check）；按照命名规范重新给镜像打tag，用docker save保存后再上传。",
        ),
        phrases=("镜像格式不合法", "the format of the image is invalid", "image format is invalid"),
        related=("registry-missing", "namespace-missing", "too-many-parts", "SVCSTG.SWR.4000028", "SVCSTG.SWR.4000069"),
    ),
    _error(
        id="page-timeout",
        section="9.3.3",
        symptom=("An upload by the page stays where it is until it times out", "通过页面上传镜像，一直卡在上传界面直到超时"),
        cause=("The image's name breaks the naming rule.", "镜像命名不规范。"),
        way_out=(
            "Name the image by the rule and upload it again. What counts are the files manifest.json and repositories inside the archive, "
            "not the file's own name.",
            "请按照镜像命名规范修改镜像名称后重新上传。SWR判定镜像名是否合法依据的是镜像包中的repositories和manifest.json文件，而非文件名。",
        ),
        phrases=("一直卡在上传界面直到超时", "卡在上传界面", "stuck uploading until it times out", "upload times out"),
        related=("repository-invalid", "namespace-invalid", "repositories-differ"),
    ),
    _error(
        id="pull-unknown-authority",
        section="9.3.4",
        symptom=(
            "docker pull fails: x509: certificate signed by unknown authority",
            "docker pull拉取镜像失败：x509: certificate signed by unknown authority",
        ),
        cause=(
            "The client checks the certificate of the registry (HTTPS), and its root certificates are incomplete; or a proxy is configured.",
            "客户端会校验服务端的证书，而客户端安装的根证书不完整；或容器引擎客户端配置了Proxy。",
        ),
        way_out=(
            "If you trust the server, let the engine do without the check, then restart it (systemctl restart docker):\n"
            + _INSECURE
            + "Look at the proxy with docker info and correct it.",
            "如果信赖服务端、跳过证书认证，请配置容器引擎的启动参数并重启（systemctl restart docker），REGISTRY为镜像仓库地址：\n"
            + _INSECURE
            + "执行docker info命令，检查proxy配置，修改为正确的proxy配置。",
        ),
        phrases=("x509: certificate signed by unknown authority", "certificate signed by unknown authority"),
        context=("docker pull", "pull", "proxy", "pulling"),
        related=("login-unknown-authority",),
    ),
    _error(
        id="trust-data-missing",
        section="9.3.4",
        symptom=(
            "docker pull fails: Error: remote trust data does not exist",
            "docker pull拉取镜像失败：Error: remote trust data does not exist",
        ),
        cause=(
            "The client verifies signatures of images, and the image has none.",
            "客户端开启镜像签名验证，而镜像没有镜像签名层。",
        ),
        way_out=(
            "See whether DOCKER_CONTENT_TRUST=1 is set; if so, take it out of /etc/profile, then source /etc/profile.",
            "请查看环境变量是否设置了DOCKER_CONTENT_TRUST=1；如果设置了，请在/etc/profile文件中去掉，然后执行source /etc/profile生效。",
        ),
        phrases=("remote trust data does not exist",),
        context=("docker pull", "pull"),
    ),
    _error(
        id="cce-not-logged-in",
        section="9.4.1",
        symptom=(
            "A workload of CCE cannot pull an image from SWR, and says that it is not logged in (未登录)",
            "CCE工作负载拉取SWR内的镜像异常，且提示为“未登录”",
        ),
        cause=(
            "The workload's YAML has no imagePullSecrets, or the name in it is not default-secret.",
            "工作负载的yaml文件中没有“imagePullSecrets”字段，或其name参数值不是default-secret。",
        ),
        way_out=(
            "Write imagePullSecrets with the name default-secret into the pod's spec, beside containers. (The guide's example has it inside "
            "containers[], where Kubernetes does not look.)",
            "请在Pod的spec下（与containers同级）添加imagePullSecrets，name固定为default-secret。（指南的示例将其写在containers[]内，Kubernetes不会识别。）",
        ),
        phrases=(
            "未登录",
            "ImagePullBackOff",
            "ErrImagePull",
            "failed to pull image {} unauthorized: authentication required",
            "failed to pull image {} unauthorized",
            "pull access denied for {} docker login",
            "not logged in",
        ),
        context=("kubelet", "cce", "pod", "workload", "工作负载"),
        related=("unauthorized",),
    ),
    _error(
        id="organization-not-listed",
        section="9.1.6",
        symptom=(
            "Creating an organization fails: it exists already; but the page Organizations does not list it",
            "创建组织失败，页面提示该组织已经存在，但在“组织管理”页面没有查询到该组织",
        ),
        cause=(
            "Names of organizations are unique in the whole region: another user has it.",
            "组织名称全局唯一，即当前区域下组织名称唯一；该组织名称可能已被其他用户使用。",
        ),
        way_out=("Choose another name.", "请重新设置一个组织名称。"),
        phrases=("该组织已经存在", "组织已存在", "the organization already exists", "the organization exists already"),
        context=("创建组织", "create"),
        related=("organization-exists", "organization-taken", "SVCSTG.SWR.4090060"),
    ),
)
