from collections.abc import Iterable

from common.republish_command import RepublishCommand
from services.catalog import offers
from services.catalog.models import Ticket


def every_ticket() -> Iterable[int]:
    return list(Ticket.objects.values_list("pk", flat=True))


class Command(RepublishCommand):
    help = "Publish the offers of tickets again (ticket.changed), for those that follow them."
    republish = staticmethod(offers.republish)
    ticket_ids = staticmethod(every_ticket)
