"""Result codes of transactions, as clients of `rippled` read them (xrpl.org "Transaction Results").

`tes` and `tec` go into a ledger and cost the fee; `ter` may succeed later; `tef`, `tel` and `tem` leave no trace.
"""

from enum import Enum


class Result(Enum):
    """Token, number and sentence of each code that this ledger gives."""

    TES_SUCCESS = ("tesSUCCESS", 0, "The transaction was applied. Only final in a validated ledger.")

    TEC_NO_DST = ("tecNO_DST", 124, "Destination does not exist. Send XRP to create it.")
    TEC_NO_DST_INSUF_XRP = (
        "tecNO_DST_INSUF_XRP",
        125,
        "Destination does not exist. Too little XRP sent to create it.",
    )
    TEC_UNFUNDED_PAYMENT = ("tecUNFUNDED_PAYMENT", 104, "Insufficient XRP balance to send.")
    TEC_UNFUNDED = ("tecUNFUNDED", 129, "Not enough XRP to satisfy the reserve requirement.")
    TEC_NO_ALTERNATIVE_KEY = (
        "tecNO_ALTERNATIVE_KEY",
        130,
        "The operation would remove the ability to sign transactions with the account.",
    )
    TEC_OWNERS = ("tecOWNERS", 132, "Non-zero owner count.")
    TEC_NO_TARGET = ("tecNO_TARGET", 138, "Target account does not exist.")
    TEC_NO_PERMISSION = ("tecNO_PERMISSION", 139, "No permission to perform requested operation.")
    TEC_NO_ENTRY = ("tecNO_ENTRY", 140, "No matching entry found.")
    TEC_INSUFFICIENT_RESERVE = (
        "tecINSUFFICIENT_RESERVE",
        141,
        "Insufficient reserve to complete requested operation.",
    )
    TEC_DST_TAG_NEEDED = ("tecDST_TAG_NEEDED", 143, "A destination tag is required.")
    TEC_EXPIRED = ("tecEXPIRED", 148, "Expiration time is passed.")

    TEF_PAST_SEQ = ("tefPAST_SEQ", -190, "This sequence number has already passed.")
    TEF_WRONG_PRIOR = ("tefWRONG_PRIOR", -189, "This previous transaction does not match.")
    TEF_MAX_LEDGER = ("tefMAX_LEDGER", -187, "Ledger sequence too high.")
    TEF_BAD_AUTH = ("tefBAD_AUTH", -196, "Transaction's public key is not authorized.")
    TEF_NOT_MULTI_SIGNING = ("tefNOT_MULTI_SIGNING", -184, "Account has no appropriate list of multi-signers.")
    TEF_NO_TICKET = ("tefNO_TICKET", -180, "Ticket is not in ledger.")

    TEL_BAD_DOMAIN = ("telBAD_DOMAIN", -398, "Domain too long.")
    TEL_BAD_PUBLIC_KEY = ("telBAD_PUBLIC_KEY", -396, "Public key is not valid.")
    TEL_INSUF_FEE_P = ("telINSUF_FEE_P", -394, "Fee insufficient.")
    TEL_CAN_NOT_QUEUE_FULL = ("telCAN_NOT_QUEUE_FULL", -387, "Can not queue at this time: queue is full.")
    TEL_WRONG_NETWORK = (
        "telWRONG_NETWORK",
        -386,
        "Transaction specifies a Network ID that differs from that of the local node.",
    )
    TEL_REQUIRES_NETWORK_ID = (
        "telREQUIRES_NETWORK_ID",
        -385,
        "Transactions submitted to this node/network must include a correct NetworkID field.",
    )
    TEL_NETWORK_ID_MAKES_TX_NON_CANONICAL = (
        "telNETWORK_ID_MAKES_TX_NON_CANONICAL",
        -384,
        "Transactions submitted to this node/network must NOT include a NetworkID field.",
    )

    TEM_MALFORMED = ("temMALFORMED", -299, "Malformed transaction.")
    TEM_BAD_AMOUNT = ("temBAD_AMOUNT", -298, "Malformed: Bad amount.")
    TEM_BAD_EXPIRATION = ("temBAD_EXPIRATION", -296, "Malformed: Bad expiration.")
    TEM_BAD_FEE = ("temBAD_FEE", -295, "Invalid fee, negative or not XRP.")
    TEM_BAD_SEND_XRP_LIMIT = (
        "temBAD_SEND_XRP_LIMIT",
        -288,
        "Malformed: Limit quality is not allowed for XRP to XRP.",
    )
    TEM_BAD_SEND_XRP_MAX = ("temBAD_SEND_XRP_MAX", -287, "Malformed: Send max is not allowed for XRP to XRP.")
    TEM_BAD_SEND_XRP_NO_DIRECT = (
        "temBAD_SEND_XRP_NO_DIRECT",
        -286,
        "Malformed: No Ripple direct is not allowed for XRP to XRP.",
    )
    TEM_BAD_SEND_XRP_PARTIAL = (
        "temBAD_SEND_XRP_PARTIAL",
        -285,
        "Malformed: Partial payment is not allowed for XRP to XRP.",
    )
    TEM_BAD_SEND_XRP_PATHS = ("temBAD_SEND_XRP_PATHS", -284, "Malformed: Paths are not allowed for XRP to XRP.")
    TEM_BAD_SIGNATURE = ("temBAD_SIGNATURE", -282, "Malformed: Bad signature.")
    TEM_BAD_SRC_ACCOUNT = ("temBAD_SRC_ACCOUNT", -281, "Malformed: Bad source account.")
    TEM_BAD_TRANSFER_RATE = (
        "temBAD_TRANSFER_RATE",
        -280,
        "Malformed: Transfer rate must be >= 1.0 and <= 2.0",
    )
    TEM_DST_IS_SRC = ("temDST_IS_SRC", -279, "Destination may not be source.")
    TEM_DST_NEEDED = ("temDST_NEEDED", -278, "Destination not specified.")
    TEM_INVALID = ("temINVALID", -277, "The transaction is ill-formed.")
    TEM_INVALID_FLAG = ("temINVALID_FLAG", -276, "The transaction has an invalid flag.")
    TEM_REDUNDANT = ("temREDUNDANT", -275, "The transaction is redundant.")
    TEM_DISABLED = ("temDISABLED", -273, "The transaction requires logic that is currently disabled.")
    TEM_BAD_SIGNER = ("temBAD_SIGNER", -272, "Malformed: No signer may duplicate account or other signers.")
    TEM_BAD_TICK_SIZE = ("temBAD_TICK_SIZE", -269, "Malformed: Tick size out of range.")
    TEM_SEQ_AND_TICKET = (
        "temSEQ_AND_TICKET",
        -263,
        "Transaction contains a TicketSequence and a non-zero Sequence.",
    )

    TER_INSUF_FEE_B = ("terINSUF_FEE_B", -97, "Account balance can't pay fee.")
    TER_NO_ACCOUNT = ("terNO_ACCOUNT", -96, "The source account does not exist.")
    TER_PRE_SEQ = ("terPRE_SEQ", -92, "Missing/inapplicable prior transaction.")
    TER_PRE_TICKET = ("terPRE_TICKET", -88, "Ticket is not yet in ledger.")

    @property
    def token(self) -> str:
        """`tesSUCCESS` and the like."""
        return self.value[0]

    @property
    def code(self) -> int:
        """Its number; in metadata only those of 0 and above appear."""
        return self.value[1]

    @property
    def message(self) -> str:
        """One sentence, as the server that this one is shaped like says it."""
        return self.value[2]

    @property
    def is_success(self) -> bool:
        """Done as asked."""
        return self is Result.TES_SUCCESS

    @property
    def claims_fee(self) -> bool:
        """Not done, but in the ledger: the fee is charged and the sequence used."""
        return self.token.startswith("tec")

    @property
    def may_succeed_later(self) -> bool:
        """Kept for a while, unless the sender asked for no such thing."""
        return self.token.startswith("ter")
