from common.loops import LoopCommand


class Command(LoopCommand):
    help = "Delete refresh tokens and logins that have expired."
    loop_path = "services.auth.purge.purge_tokens"
