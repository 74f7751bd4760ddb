from common.audit_command import AuditCommand
from services.inventory.audit import audit


class Command(AuditCommand):
    help = "Check inventory's invariants (I1 to I3 and the ledger) in one snapshot."
    audit = staticmethod(audit)
