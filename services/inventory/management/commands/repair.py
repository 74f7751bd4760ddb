from common.repair_command import RepairCommand
from services.inventory.repairing import REPAIRS


class Command(RepairCommand):
    help = (
        "Repair what an audit has found: reads [{repair, id, why}, …] as JSON. "
        f"Repairs: {', '.join(REPAIRS)}. `manage_all.py reconcile` calls this."
    )
    repairs = REPAIRS
