package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/osrg/gobgp/v3/pkg/packet/bgp"
	"golang.org/x/sys/unix"
)

// An Open is what a router says of itself first.
type Open struct {
	ASN      uint32
	Hold     time.Duration
	RouterID netip.Addr
	IPv4     bool // it speaks IPv4 unicast here
	IPv6     bool
	Restart  time.Duration // graceful restart; 0 = it has none, or only helps others
}

// converse reads what the router says on a connection that it took.
func (t Target) converse(conn net.Conn, o Options) Result {
	if err := conn.SetDeadline(time.Now().Add(o.Timeout)); err != nil {
		return Result{Cause: Broken, Detail: err.Error()}
	}
	m, err := readMessage(conn)
	if err != nil {
		return broken(err)
	}
	if refusal := refusalOf(m); refusal != "" {
		return Result{Cause: Said, Detail: refusal}
	}
	said, ok := m.Body.(*bgp.BGPOpen)
	if !ok {
		return Result{Cause: Foreign, Detail: fmt.Sprintf("it begins with a message of type %d", m.Header.Type)}
	}
	r := Result{Cause: Spoke, Heard: heard(said)}
	if o.Open {
		t.answer(conn, &r)
	}
	return r
}

// answer says our OPEN, sees what the router makes of it, and leaves.
func (t Target) answer(conn net.Conn, r *Result) {
	asn := uint16(bgp.AS_TRANS)
	if t.ASN < 1<<16 {
		asn = uint16(t.ASN)
	}
	open := bgp.NewBGPOpenMessage(asn, uint16(t.Hold/time.Second), t.RouterID.String(), []bgp.OptionParameterInterface{
		bgp.NewOptionParameterCapability([]bgp.ParameterCapabilityInterface{
			bgp.NewCapRouteRefresh(), bgp.NewCapMultiProtocol(bgp.RF_IPv4_UC), bgp.NewCapMultiProtocol(bgp.RF_IPv6_UC),
			bgp.NewCapFourOctetASNumber(t.ASN),
		}),
	})
	if err := write(conn, open); err != nil {
		r.Detail = plain(err)
		return
	}
	m, err := readMessage(conn)
	if err != nil {
		*r = Result{Cause: broken(err).Cause, Detail: broken(err).Detail, Heard: r.Heard}
		return
	}
	if refusal := refusalOf(m); refusal != "" {
		r.Cause, r.Detail = Said, refusal
		return
	}
	r.Took = m.Header.Type == bgp.BGP_MSG_KEEPALIVE
	_ = write(conn, bgp.NewBGPNotificationMessage(bgp.BGP_ERROR_CEASE, bgp.BGP_ERROR_SUB_OTHER_CONFIGURATION_CHANGE, nil))
}

func write(conn net.Conn, m *bgp.BGPMessage) error {
	b, err := m.Serialize()
	if err != nil {
		return err
	}
	_, err = conn.Write(b)
	return err
}

// errForeign is something that is not BGP.
var errForeign = errors.New("it is not BGP")

// readMessage reads one message. The library's parser is not trusted with what it does not know: only the types that can
// come here get to it, and a panic of its is an error.
func readMessage(r io.Reader) (m *bgp.BGPMessage, err error) {
	defer func() {
		if p := recover(); p != nil {
			m, err = nil, fmt.Errorf("%w: %v", errForeign, p)
		}
	}()
	head := make([]byte, bgp.BGP_HEADER_LENGTH)
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(r, head[1:]); err != nil {
		return nil, fmt.Errorf("%w: it ends after less than a header", errForeign)
	}
	for _, b := range head[:16] {
		if b != 0xff {
			return nil, fmt.Errorf("%w: it begins with %q", errForeign, head)
		}
	}
	length, kind := binary.BigEndian.Uint16(head[16:]), head[18]
	switch {
	case length < bgp.BGP_HEADER_LENGTH || length > bgp.BGP_MAX_MESSAGE_LENGTH:
		return nil, fmt.Errorf("%w: a message of %d bytes", errForeign, length)
	case kind != bgp.BGP_MSG_OPEN && kind != bgp.BGP_MSG_NOTIFICATION && kind != bgp.BGP_MSG_KEEPALIVE:
		return nil, fmt.Errorf("%w: a message of type %d", errForeign, kind)
	}
	body := make([]byte, int(length)-len(head))
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("%w: its message ends early", errForeign)
	}
	h := &bgp.BGPHeader{}
	if err := h.DecodeFromBytes(head); err != nil {
		return nil, fmt.Errorf("%w: %w", errForeign, err)
	}
	m, err = bgp.ParseBGPBody(h, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errForeign, err)
	}
	return m, nil
}

// broken is what an error of readMessage says of the router.
func broken(err error) Result {
	switch {
	case errors.Is(err, errForeign):
		return Result{Cause: Foreign, Detail: err.Error()}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Result{Cause: Mute}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.ECONNRESET):
		return Result{Cause: Closed}
	}
	return Result{Cause: Broken, Detail: plain(err)}
}

// refusalOf is a NOTIFICATION in words; "" = m is none.
func refusalOf(m *bgp.BGPMessage) string {
	n, ok := m.Body.(*bgp.BGPNotification)
	if !ok {
		return ""
	}
	return bgp.NewNotificationErrorCode(n.ErrorCode, n.ErrorSubcode).String()
}

func heard(o *bgp.BGPOpen) *Open {
	out := &Open{ASN: uint32(o.MyAS), Hold: time.Duration(o.HoldTime) * time.Second}
	if id, ok := netip.AddrFromSlice(o.ID); ok {
		out.RouterID = id.Unmap()
	}
	families := false
	for _, p := range o.OptParams {
		caps, ok := p.(*bgp.OptionParameterCapability)
		if !ok {
			continue
		}
		for _, c := range caps.Capability {
			switch c := c.(type) {
			case *bgp.CapFourOctetASNumber:
				out.ASN = c.CapValue
			case *bgp.CapMultiProtocol:
				families = true
				out.IPv4 = out.IPv4 || c.CapValue == bgp.RF_IPv4_UC
				out.IPv6 = out.IPv6 || c.CapValue == bgp.RF_IPv6_UC
			case *bgp.CapGracefulRestart:
				if len(c.Tuples) > 0 {
					out.Restart = time.Duration(c.Time) * time.Second
				}
			}
		}
	}
	out.IPv4 = out.IPv4 || !families // RFC 4760, section 8
	return out
}
