from common.loops import LoopCommand


class Command(LoopCommand):
    help = "Apply the events that this service subscribes to."
    loop_path = "common.events.inbox.consume_events"
