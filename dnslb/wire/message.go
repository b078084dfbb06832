package wire

// Sizes in octets (RFC 1035 2.3.4, 4.1.1; RFC 6891 6.1.2).
const (
	HeaderSize  = 12
	MaxName     = 255
	MaxMessage  = 65535
	MinUDPSize  = 512
	optBaseSize = 11
)

// An Rcode is a response code; codes over 15 need an OPT record (RFC 6891).
type Rcode uint16

// The response codes that are sent.
const (
	NoError  Rcode = 0
	FormErr  Rcode = 1
	ServFail Rcode = 2
	NXDomain Rcode = 3
	NotImp   Rcode = 4
	Refused  Rcode = 5
	YXDomain Rcode = 6
	NotAuth  Rcode = 9
	BadVers  Rcode = 16
)

// String returns the mnemonic in lower case, as metrics label it.
func (r Rcode) String() string {
	switch r {
	case NoError:
		return "noerror"
	case FormErr:
		return "formerr"
	case ServFail:
		return "servfail"
	case NXDomain:
		return "nxdomain"
	case NotImp:
		return "notimp"
	case Refused:
		return "refused"
	case YXDomain:
		return "yxdomain"
	case NotAuth:
		return "notauth"
	case BadVers:
		return "badvers"
	default:
		return "other"
	}
}

// Opcodes (RFC 6895 2.2).
const (
	OpcodeQuery  uint8 = 0
	OpcodeNotify uint8 = 4
	OpcodeUpdate uint8 = 5
)

// Record and query types that the server treats specially.
const (
	TypeA     uint16 = 1
	TypeNS    uint16 = 2
	TypeCNAME uint16 = 5
	TypeSOA   uint16 = 6
	TypeHINFO uint16 = 13
	TypeTXT   uint16 = 16
	TypeAAAA  uint16 = 28
	TypeDNAME uint16 = 39
	TypeOPT   uint16 = 41
	TypeDS    uint16 = 43
	TypeRRSIG uint16 = 46
	TypeTSIG  uint16 = 250
	TypeIXFR  uint16 = 251
	TypeAXFR  uint16 = 252
	TypeANY   uint16 = 255
)

// Classes.
const (
	ClassIN  uint16 = 1
	ClassCH  uint16 = 3
	ClassANY uint16 = 255
)

// EDNS option codes that are understood; others are ignored.
const (
	optionNSID      uint16 = 3  // RFC 5001
	optionECS       uint16 = 8  // RFC 7871
	optionKeepalive uint16 = 11 // RFC 7828
	optionEDE       uint16 = 15 // RFC 8914
)

// Extended errors (RFC 8914) that are sent.
const (
	ExtendedNotReady         uint16 = 14
	ExtendedNotAuthoritative uint16 = 20
	ExtendedNotSupported     uint16 = 21
)
