from common.loops import LoopCommand


class Command(LoopCommand):
    help = "Finish orders, payments and holds that were interrupted."
    loop_path = "services.order.sweeping.finish_orders"
