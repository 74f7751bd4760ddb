from collections.abc import Iterable

from common.republish_command import RepublishCommand
from services.inventory import stock
from services.inventory.models import Stock


def every_ticket() -> Iterable[int]:
    return list(Stock.objects.values_list("pk", flat=True))


class Command(RepublishCommand):
    help = "Publish the counters of tickets again (stock.changed), for those that follow them."
    republish = staticmethod(stock.republish)
    ticket_ids = staticmethod(every_ticket)
