"""Which hosts and addresses a program may reach, and what a redirect makes of a request."""

from __future__ import annotations

import pytest

from pie_trio.errors import BadConfig, BadRequest
from pie_trio.fetches import FetchRequest
from pie_trio.services.fetch_rules import AllowList, check_request, place_of, redirected


def allows(entries: list[str], url: str) -> bool:
    try:
        AllowList.parse(entries).entry_of(place_of(url))
    except BadRequest:
        return False
    return True


@pytest.mark.parametrize(
    ("entry", "url", "is_allowed"),
    [
        ("example.com", "https://example.com/a?b", True),
        ("example.com", "http://example.com", True),
        ("example.com", "http://EXAMPLE.com./", True),
        ("Example.COM", "http://example.com/", True),
        ("example.com", "http://example.com:8080/", False),
        ("example.com", "https://example.com:80/", False),
        ("example.com:8080", "http://example.com:8080/", True),
        ("example.com:8080", "http://example.com/", False),
        ("example.com", "http://www.example.com/", False),
        ("example.com", "http://example.com.evil.org/", False),
        ("example.com", "http://evil.org/example.com", False),
        ("127.0.0.1:9", "http://127.0.0.1:9/", True),
        ("127.0.0.1:9", "http://2130706433:9/", False),
        ("[::1]:9", "http://[::1]:9/", True),
        ("[::1]:9", "http://[0:0::1]:9/", True),
    ],
)
def test_an_entry_names_one_host_and_one_port(entry: str, url: str, is_allowed: bool) -> None:
    assert allows([entry], url) is is_allowed


def test_without_entries_nothing_is_allowed_and_the_refusal_says_how() -> None:
    with pytest.raises(
        BadRequest, match=r"example.com:443 is not .*\(none\); `--allow-fetch HOST`"
    ):
        AllowList().entry_of(place_of("https://example.com/"))


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "https://example.com",
        "example.com/path",
        "*",
        "*.com",
        "user@host",
        "host:x",
        "a b",
        ":80",
    ],
)
def test_what_names_no_host_is_no_entry(entry: str) -> None:
    with pytest.raises(BadConfig, match="no HOST or HOST:PORT"):
        AllowList.parse([entry])


@pytest.mark.parametrize(
    "url",
    [
        *(
            "ftp://example.com/",
            "example.com",
            "http:///path",
            "//example.com/",
            "file:///etc/passwd",
        ),
        *("http://user@example.com/", "http://user:word@example.com/", "http://example.com:x/"),
        *(
            "http://example.com/a b",
            "http://example.com/ä",
            "http://exa\tmple.com/",
            "http://[::1/",
        ),
        *("http://evil.org\\@example.com/", "http://example.com:0/", f"http://{'a' * 300}.com/"),
        *(f"http://{'a' * 64}.com/", "http://a..b/", "http://%65xample.com/"),
    ],
)
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(BadRequest, match="fetch: "):
        place_of(url)


PRIVATE = [
    *("127.0.0.1", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0.0.0.0"),
    *("100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "ff02::1"),
    *("2002:7f00:1::", "2002:a00:1::"),
]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_name_never_leads_to_an_address_that_is_not_public(address: str) -> None:
    (entry,) = AllowList.parse(["example.com"]).entries
    assert not entry.permits_address(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
def test_a_name_leads_to_public_addresses(address: str) -> None:
    (entry,) = AllowList.parse(["example.com"]).entries
    assert entry.permits_address(address)


def test_an_address_on_the_list_is_that_address_and_no_other() -> None:
    (entry,) = AllowList.parse(["10.0.0.1:80"]).entries
    assert [entry.permits_address(a) for a in ("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2")] == [
        True,
        True,
        False,
    ]


def test_localhost_is_this_machine_and_nothing_else() -> None:
    (entry,) = AllowList.parse(["localhost:80"]).entries
    found = [entry.permits_address(a) for a in ("127.0.0.1", "::1", "10.0.0.1", "93.184.216.34")]
    assert found == [True, True, False, False]


@pytest.mark.parametrize(
    "request_",
    [
        FetchRequest("CONNECT", "http://example.com/"),
        FetchRequest("get", "http://example.com/"),
        FetchRequest("GET", "http://example.com/", (("Host", "evil.org"),)),
        FetchRequest("GET", "http://example.com/", (("Transfer-Encoding", "chunked"),)),
        FetchRequest("POST", "http://example.com/", (), b"x" * 11),
    ],
    ids=["connect", "lower case", "host", "framing", "body"],
)
def test_what_is_not_for_a_program_to_say_is_refused(request_: FetchRequest) -> None:
    with pytest.raises(BadRequest, match="fetch: "):
        check_request(request_, 10)


SECRET = (("Authorization", "me"), ("Accept", "all"), ("Content-Type", "text"))


def follow(method: str, status: int, location: str, url: str = "http://a.com/x/y") -> FetchRequest:
    request = FetchRequest(method, url, SECRET, b"body")
    following = redirected(request, status, (("Location", location),))
    assert following is not None
    return following


def test_a_redirect_is_relative_to_where_it_came_from() -> None:
    assert follow("GET", 302, "../z").url == "http://a.com/z"
    assert follow("GET", 307, "/q?1").url == "http://a.com/q?1"


def test_what_a_post_becomes_depends_on_the_kind_of_redirect() -> None:
    found = {status: follow("POST", status, "/") for status in (301, 302, 303, 307, 308)}
    methods = {status: (each.method, each.body) for status, each in found.items()}
    read, again = ("GET", b""), ("POST", b"body")
    assert methods == {301: read, 302: read, 303: read, 307: again, 308: again}
    assert dict(found[303].headers) == {"Authorization": "me", "Accept": "all"}


def test_secrets_stay_with_their_host() -> None:
    for elsewhere in ("http://b.com/", "http://a.com:81/", "https://a.com/"):
        assert "Authorization" not in dict(follow("GET", 302, elsewhere).headers)
    assert "Authorization" in dict(follow("GET", 302, "http://a.com/other").headers)


def test_a_redirect_never_gives_up_encryption() -> None:
    with pytest.raises(BadRequest, match="not encrypted"):
        follow("GET", 302, "http://a.com/", url="https://a.com/")


def test_an_answer_that_leads_nowhere_is_the_last() -> None:
    request = FetchRequest("GET", "http://a.com/")
    assert redirected(request, 302, ()) is None
    assert redirected(request, 200, (("Location", "/"),)) is None
