"""From a payment pointer or URL to whom to pay, as the wallet wants it."""

from isthmus.apps.spsp import SpspClient
from isthmus.client.terms import Receiver
from isthmus.runtime import clock


async def resolve(target: str) -> Receiver:
    """Ask a pointer or URL; anew each time, for secrets are used once. Raises TargetError or SpspError."""
    async with SpspClient(mono_ms=clock.mono_ms) as client:
        details = await client.query(target)
    return Receiver(details.destination_account, details.shared_secret, details.resolved_host, details.final_host)
