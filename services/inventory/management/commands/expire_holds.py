from common.loops import LoopCommand


class Command(LoopCommand):
    help = "Give overdue reservations back to the stock."
    loop_path = "services.inventory.expiry.expire_holds"
