from common.audit_command import AuditCommand
from services.order.audit import audit


class Command(AuditCommand):
    help = "Check the invariants of orders and payments in one snapshot."
    audit = staticmethod(audit)
