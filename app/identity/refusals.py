"""What is refused before anything is decided: at the API and at a notebook's door, under the same names."""

from app.domain.errors import Forbidden, Refusal


class NotAuthenticated(Refusal):
    """Log in first, or send an API token as `Authorization: Bearer …`."""

    status = 401


class BadToken(Refusal):
    """This session or token has ended, expired, or never was one; log in again or make a new token."""

    status = 401


class ScopeMissing(Forbidden):
    """This token's scopes do not allow that; make one with the scope that is named."""


class CrossOrigin(Forbidden):
    """This request comes from a page of another origin."""


class BadTicket(Forbidden):
    """This way in was used before, is too old, or never was one; open the notebook again from the platform."""
