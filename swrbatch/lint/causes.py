"""Why each rule stands: what goes wrong where it is not kept (the guide's section 8.1 and 9.4.1, and what engines do)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from .rule import Texts

CAUSES: Final[Mapping[str, Texts]] = MappingProxyType(
    {
        "syntax": (
            "A builder stops at a line that it cannot parse: there is no image.",
            "构建器遇到无法解析的行会停止，不会生成镜像。",
        ),
        "unknown-ignore": (
            "A misspelled name switches nothing off, and nobody sees that the exception is not there.",
            "名称写错时不会忽略任何规则，例外实际上没有生效。",
        ),
        "background-process": (
            "The engine watches process 1 only: when the other one dies, the container is still taken for "
            "running, and its output "
            "and its restarts are lost.",
            "引擎只关注1号进程：后台进程退出后容器仍被视为运行中，其日志和重启都会丢失。",
        ),
        "several-services": (
            "Services in one container cannot be scaled, updated and restarted each by itself; the guide asks for"
            " one process a container.",
            "同一容器中的多个服务无法单独扩缩、升级和重启；指南要求一个容器只运行一个进程。",
        ),
        "process-supervisor": (
            "A supervisor restarts its programs out of the engine's sight: a service that fails again and again looks healthy.",
            "进程管理程序在引擎不知情的情况下重启服务：反复失败的服务看上去仍然正常。",
        ),
        "package-upgrade": (
            "What is newest depends on the day of the build, and each upgraded file is stored a second time above the base's.",
            "最新版本取决于构建当天，且升级后的文件会在基础镜像之上再存一份。",
        ),
        "update-alone": (
            "The layer of the update comes from the build cache for as long as its line is the same; a later "
            "install then asks for "
            "packages that the mirror no longer has.",
            "只要该行不变，update所在的层就一直取自构建缓存，之后的安装会请求镜像源上已不存在的软件包。",
        ),
        "mixed-frequency": (
            "A layer is built again when anything in it changes: what changes seldom is installed again with what"
            " changes every day.",
            "层中任一内容变化都会重新构建该层：很少变化的内容会随每天变化的内容一起重新安装。",
        ),
        "consecutive-runs": (
            "Each RUN is a layer of its own; what a later one deletes stays in the one before.",
            "每个RUN都是单独的一层，后一层删除的内容仍留在前一层中。",
        ),
        "wasted-files": (
            "Layers are only ever added to: what a later layer deletes or replaces is still stored, uploaded and "
            "pulled by everyone.",
            "镜像层只增不减：后面的层删除或覆盖的内容仍会被存储、上传和下载。",
        ),
        "floating-tag": (
            "The same name means another image tomorrow: a build cannot be repeated, and nodes run different "
            "contents under one name.",
            "同一名称明天可能指向另一个镜像：构建无法重现，各节点可能以同一名称运行不同内容。",
        ),
        "package-leftovers": (
            "Package lists and archives are needed during the install only, but are stored and pulled with the layer for ever.",
            "软件包列表和缓存只在安装时有用，却会随该层一直被存储和下载。",
        ),
        "pip-cache": (
            "The cache would speed up the next install on this machine; in a layer there is no next one.",
            "缓存只能加快同一机器上的下一次安装，而在镜像层中没有下一次。",
        ),
        "yarn-cache": (
            "yarn keeps each package that it fetched; what is installed is in node_modules, and the second copy is never read.",
            "yarn会保留下载的每个软件包；安装的内容在node_modules中，第二份不会再被读取。",
        ),
        "general-base": (
            "A whole distribution brings packages that the program never uses: more to pull, and more to patch.",
            "完整的发行版带有程序用不到的软件包：下载更多，需要修补的漏洞也更多。",
        ),
        "end-of-life-base": (
            "Holes that are found from now on stay open: the distribution publishes no more fixes for it.",
            "此后发现的漏洞不会被修补：发行方已不再为该版本发布更新。",
        ),
        "run-cd": (
            "Each RUN starts a shell of its own in the WORKDIR; a cd does not reach the next instruction.",
            "每个RUN都在WORKDIR中启动新的shell，cd对下一条指令无效。",
        ),
        "relative-workdir": (
            "It is taken from the WORKDIR before it, which may be the base image's: another base, another folder.",
            "相对路径以之前的WORKDIR为准，可能来自基础镜像：更换基础镜像后目录随之变化。",
        ),
        "shell-form": (
            "docker stop sends SIGTERM to process 1; sh does not pass it on, and after ten seconds the program is"
            " killed in the middle "
            "of its work.",
            "docker stop向1号进程发送SIGTERM，sh不会转发，十秒后程序在工作中被强制终止。",
        ),
        "no-command": (
            "The container runs the base's command, often a shell that ends at once, and not the program that was put in.",
            "容器会运行基础镜像的命令（通常是立即退出的shell），而不是所放入的程序。",
        ),
        "missing-workdir": (
            "Relative paths of the program are taken from /, where it should neither read nor write.",
            "程序的相对路径会以/为起点，而程序不应在此读写。",
        ),
        "several-entrypoints": (
            "The ones before the last are dropped without a word: the image starts something else than the reader expects.",
            "除最后一条外都会被静默丢弃：镜像启动的内容与读者预期不同。",
        ),
        "entrypoint-hides-command": (
            "In shell form the engine starts sh -c TEXT: CMD, and what docker run is given, become arguments of "
            "sh that nothing reads.",
            "shell格式下引擎启动sh -c 文本：CMD和docker run的参数成为sh的参数，没有程序会读取。",
        ),
        "missing-program": (
            "The container cannot start at all: the engine finds nothing at that path that it may execute.",
            "容器根本无法启动：引擎在该路径下找不到可执行的程序。",
        ),
        "entrypoint-exec": (
            "Without exec the script stays process 1 and the program is its child: signals end the script, or nothing.",
            "没有exec时脚本一直是1号进程，程序只是其子进程：信号到达不了程序。",
        ),
        "add-local": (
            "ADD also unpacks archives and fetches addresses: COPY says what is meant, and does only that.",
            "ADD还会解压归档和下载网址：COPY含义明确，只做复制。",
        ),
        "add-url": (
            "The file behind an address can change or be swapped, and it stays in a layer even when a later RUN deletes it.",
            "网址背后的文件可能变化或被替换，即使之后的RUN删除它，它仍留在层中。",
        ),
        "copy-before-install": (
            "The layer of the install depends on all files copied before it: one changed line of source installs "
            "everything anew.",
            "安装所在的层依赖之前复制的所有文件：源码改动一行就要重新安装全部依赖。",
        ),
        "undefined-variable": (
            "It is replaced by nothing: a path or a name is cut short, and the build goes on with it.",
            "未定义的变量会被替换为空：路径或名称被截断，而构建仍继续。",
        ),
        "legacy-env": (
            "One instruction sets one variable only, and further words become part of its value.",
            "旧格式每条指令只能设置一个变量，后面的词都会成为其值的一部分。",
        ),
        "secret-in-build": (
            "Config and history are plain JSON in the image: docker inspect and docker history show them to "
            "everybody who can pull it.",
            "配置和历史是镜像中的明文JSON：任何能下载镜像的人都能用docker inspect和docker history看到。",
        ),
        "secret-file": (
            "Whoever has the image unpacks any layer of it by itself, deleted files too; a key in it must be taken for public.",
            "任何拿到镜像的人都能单独解开每一层，包括已删除的文件；其中的密钥应视为已公开。",
        ),
        "invalid-port": (
            "Ports are numbers from 1 to 65535, alone or as a range, with tcp, udp or sctp; the builder refuses others.",
            "端口是1到65535的数字或范围，可带tcp、udp或sctp；其他写法会被构建器拒绝。",
        ),
        "ssh-port": (
            "A login daemon is a second process with keys and accounts of its own; docker exec and kubectl exec need none.",
            "登录守护进程是带有自己密钥和账号的第二个进程；docker exec和kubectl exec不需要它。",
        ),
        "missing-expose": (
            "Nobody who runs the image can tell its port from it, and docker run -P publishes nothing.",
            "使用者无法从镜像得知端口，docker run -P也不会发布任何端口。",
        ),
        "database-without-volume": (
            "Data in the container's own layer is slow to write, and gone with the container.",
            "写在容器自身层中的数据写入慢，并随容器一起消失。",
        ),
        "write-below-volume": (
            "The classic builder gives each RUN a fresh volume there and throws it away: the files are missing in the image.",
            "传统构建器在每个RUN中为该路径使用新的卷并随后丢弃：镜像中没有这些文件。",
        ),
        "missing-label": (
            "In a registry of thousands of images nothing tells whose this one is, what it was built of, and "
            "whether it may be deleted.",
            "在有上千镜像的仓库中，无法得知该镜像属于谁、由什么构建、能否删除。",
        ),
        "label-key": (
            "Tools look labels up by their key: one in another spelling, or in a name space that is Docker's, is not found or"
            " means something else.",
            "工具按键查找标签：写法不同的键，或占用Docker保留命名空间的键，会找不到或另有含义。",
        ),
        "maintainer": (
            "It holds one name and no key; tools read labels, and new builders warn about it.",
            "它只能写一个名称，没有键；工具读取的是标签，新的构建器会对它给出警告。",
        ),
        "missing-healthcheck": (
            "A program that hangs still has a process: the engine shows the container as up.",
            "程序挂起时进程仍在：引擎会显示容器正常运行。",
        ),
        "several-healthchecks": (
            "The ones before the last are dropped without a word: what they tested is tested no more.",
            "除最后一条外都会被静默丢弃：它们检查的内容不再被检查。",
        ),
        "missing-dockerignore": (
            "The whole folder goes to the builder and into a layer: the history of .git, local settings and keys too.",
            "整个目录都会发送给构建器并进入镜像层，包括.git历史、本地配置和密钥。",
        ),
        "root-user": (
            "A hole in the program gives its attacker root in the container, and with a hole in the kernel or a "
            "mount on the host as well.",
            "程序被攻破后攻击者即为容器内的root，若内核有漏洞或挂载了主机目录，还会危及主机。",
        ),
        "missing-user": (
            "Nearly all base images leave the user at root, and so does this one then.",
            "几乎所有基础镜像的默认用户都是root，该镜像也是如此。",
        ),
        "not-evaluable": (
            "Tools that squash or edit images write a history that no longer fits the layers.",
            "压缩或编辑镜像的工具会写出与层不再对应的历史。",
        ),
        "manifest-syntax": (
            "kubectl refuses the file, and rules that need it could not be judged.",
            "kubectl会拒绝该文件，相关规则也无法检查。",
        ),
        "missing-pull-secret": (
            "The kubelet then pulls without logging in, and SWR answers that the image is not there or access is denied.",
            "kubelet会在未登录的情况下拉取镜像，SWR会返回镜像不存在或无权限。",
        ),
        "other-pull-secret": (
            "Only default-secret is kept up to date by the cluster; the login in another one expires, and pulls begin to fail.",
            "集群只会自动更新default-secret；其他密钥中的登录信息会过期，之后拉取失败。",
        ),
        "misplaced-pull-secret": (
            "imagePullSecrets is a field of the pod's spec: in a container it is unknown, and dropped.",
            "imagePullSecrets是Pod spec的字段：写在容器中属于未知字段，会被丢弃。",
        ),
    }
)
