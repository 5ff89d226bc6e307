"""A token names a place in a list; whatever else is offered as one is refused by its field."""

from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from libs.paging.tokens import Place, decode, encode
from libs.runtime.errors import InvalidField

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize("moment", [FIRST, datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC), LAST])
@pytest.mark.parametrize("ids", [(), (uuid4(),), (UUID(int=0), UUID(int=2**128 - 1))])
def test_a_token_gives_back_its_place_to_the_microsecond(moment: datetime, ids: tuple[UUID, ...]) -> None:
    place = Place(moment, ids)

    assert decode(encode(place), len(ids)) == place


@pytest.mark.parametrize(
    "token",
    [
        "",
        "not base64!",
        "zażółć",
        encode(Place(LAST, ())),
        encode(Place(LAST, (uuid4(), uuid4()))),
        encode(Place(LAST, (uuid4(),))) + "\n",
        encode(Place(LAST, (uuid4(),)))[:-4],
        urlsafe_b64encode(b"\x7f" + bytes(23)).decode(),
    ],
    ids=["empty", "nonsense", "no ASCII", "no id", "two ids", "more", "less", "no time there ever was"],
)
def test_what_is_no_token_of_the_list_is_refused_by_its_field(token: str) -> None:
    with pytest.raises(InvalidField) as refused:
        decode(token, 1)

    assert [violation.field for violation in refused.value.violations] == ["page_token"]
