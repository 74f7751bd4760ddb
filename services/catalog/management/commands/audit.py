from common.audit_command import AuditCommand
from services.catalog.audit import audit


class Command(AuditCommand):
    help = "Check the catalog's tables and print the facts for the audit of the whole system."
    audit = staticmethod(audit)
