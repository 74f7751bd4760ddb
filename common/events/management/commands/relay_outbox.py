from common.loops import LoopCommand


class Command(LoopCommand):
    help = "Publish this service's outbox to its stream."
    loop_path = "common.events.relay.relay_outbox"
