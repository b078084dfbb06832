package cluster

import (
	"context"
	"net"

	"github.com/hashicorp/memberlist"
)

const (
	// maxMessengers is how many frames other than reports are delivered over TCP
	// at a time, and maxDispatches how many wait for that.
	maxMessengers = 16
	maxDispatches = 1024
)

// dispatch is a frame on its way to one member over TCP.
type dispatch struct {
	frame []byte
	kind  frameKind
	to    peer
	// failed is called if it cannot be delivered; nil for nobody.
	failed func()
}

// dispatch leaves d to a messenger; if too many wait it is dropped and counted.
func (n *Node) dispatch(d dispatch) {
	select {
	case n.dispatches <- d:
	default:
		n.meters.dropped.WithLabelValues(dropCourier).Inc()
	}
}

// deliverDispatches is one messenger.
func (n *Node) deliverDispatches(ctx context.Context, protocol *memberlist.Memberlist) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-n.dispatches:
			n.deliverDispatch(protocol, d)
		}
	}
}

func (n *Node) deliverDispatch(protocol *memberlist.Memberlist, d dispatch) {
	to := &memberlist.Node{Name: d.to.name, Addr: net.IP(d.to.addr.Addr().AsSlice()), Port: d.to.addr.Port()}
	if err := protocol.SendReliable(to, d.frame); err != nil {
		n.meters.dropped.WithLabelValues(dropSend).Inc()
		n.complain(d.kind.String()+" cannot be sent", err)
		if d.failed != nil {
			d.failed()
		}
		return
	}
	n.meters.messages.WithLabelValues("out", d.kind.String()).Inc()
}
