"""Names in addresses, held against the same rules as in bodies: of msgspec's rules Litestar knows only in bodies."""

from typing import Annotated, Any, TypeAlias, get_args

from litestar.params import PathParameter, QueryParameter
from msgspec import Meta

from app.domain.groups import GroupName
from app.domain.names import NotebookName, UserId
from app.domain.projects import ProjectName
from app.domain.tokens import TokenId


def _rules(name: Any) -> dict[str, Any]:
    meta = next(rule for rule in get_args(name) if isinstance(rule, Meta))
    return {"pattern": meta.pattern, "max_length": meta.max_length, "description": meta.description}


GroupInPath: TypeAlias = Annotated[GroupName, PathParameter(**_rules(GroupName))]
ProjectInPath: TypeAlias = Annotated[ProjectName, PathParameter(**_rules(ProjectName))]
NotebookInPath: TypeAlias = Annotated[NotebookName, PathParameter(**_rules(NotebookName))]
UserInPath: TypeAlias = Annotated[UserId, PathParameter(**_rules(UserId))]
TokenInPath: TypeAlias = Annotated[TokenId, PathParameter(**_rules(TokenId))]
PositionInPath: TypeAlias = Annotated[int, PathParameter(ge=1, le=2**53, description="A position in the log.")]

OnlyGroup: TypeAlias = Annotated[GroupName | None, QueryParameter(**_rules(GroupName), required=False)]
OnlyProject: TypeAlias = Annotated[ProjectName | None, QueryParameter(**_rules(ProjectName), required=False)]
