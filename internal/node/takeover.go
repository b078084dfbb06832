package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/pharos-lb/pharos/bgp"
	"github.com/pharos-lb/pharos/internal/handover"
	"github.com/pharos-lb/pharos/internal/health"
)

// releaseLimit is how long the old process may take between this one's "ready" and its "release".
const releaseLimit = time.Minute

// doorsLimit is how long this process may take to find out that the old one's sockets answer it.
const doorsLimit = 3 * doorEvery

// Failed tells the process that is to be replaced why that will not be.
func Failed(conn *handover.Conn, err error) {
	_ = conn.Send(msgFailed, failedBody{err.Error()}, nil, sendLimit)
}

// receiveOffer takes the old process's sockets, for those who are about to bind, and the lock
// of the state folder, nil if it has none.
func (n *Node) receiveOffer() (*os.File, error) {
	conn := n.opts.Takeover
	hello := helloBody{Protocol: upgradeProtocol, Version: n.opts.Version, BGPWire: bgp.Wire}
	if err := conn.Send(msgHello, hello, nil, sendLimit); err != nil {
		return nil, fmt.Errorf("take over: %w", err)
	}
	m, err := conn.Receive(sendLimit + helloLimit)
	if err != nil {
		return nil, fmt.Errorf("take over: no offer came: %w", err)
	}
	var offer offerBody
	if err := m.Decode(&offer); err != nil || m.Kind != msgOffer {
		m.Close()
		return nil, fmt.Errorf("take over: want an offer, got %q: %w", m.Kind, err)
	}
	fds := m.Files
	var lock *os.File
	if offer.Lock && len(fds) > 0 {
		lock, fds = os.NewFile(uintptr(fds[0]), lockFile), fds[1:]
	}
	if len(fds) != len(offer.Sockets) {
		m.Close()
		return nil, fmt.Errorf("take over: %d sockets were announced, %d came", len(offer.Sockets), len(fds))
	}
	handover.Inherit(offer.Sockets, fds)
	n.handed = make(map[health.Target]ownState, len(offer.Own))
	for _, own := range offer.Own {
		n.handed[own.Target] = own
	}
	return lock, nil
}

// takeOver waits for the old process to let go, and starts everything that it left to this one. From its
// end on this process is responsible.
func (n *Node) takeOver(ctx context.Context, setup *Setup, parts *parts) error {
	conn, adopted := n.opts.Takeover, false
	defer func() {
		if !adopted {
			conn.Close()
		}
	}()
	cfg, peers, wanted := setup.speakerConfig()
	if wanted {
		if err := bgp.Validate(cfg, peers); err != nil {
			return fmt.Errorf("bgp: %w", err)
		}
	}
	n.awaitDoors(ctx, doorsLimit)
	if rest := handover.CloseRest(); len(rest) > 0 {
		n.log.Debug("sockets of the old process that are not needed", "sockets", len(rest))
	}
	if err := conn.Send(msgReady, struct{}{}, nil, sendLimit); err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	m, err := conn.Receive(releaseLimit)
	if err != nil {
		return fmt.Errorf("take over: the old process did not let go: %w", errors.Join(err, ctx.Err()))
	}
	var release releaseBody
	if err := m.Decode(&release); err != nil || m.Kind != msgRelease {
		m.Close()
		return fmt.Errorf("take over: want a release, got %q: %w", m.Kind, err)
	}
	files := m.Files
	if release.BGP != nil && len(files) >= len(release.BGP.Files) {
		files = files[copy(release.BGP.Files[:], files):]
		n.leash = release.BGP
	}
	n.mu.Lock()
	datagrams := n.udp
	n.mu.Unlock()
	datagrams.Adopt(release.Sessions, files)
	n.counters.adopt(release.Counters)
	n.state.thaw()
	n.decider.do(ctx, func() {
		if all := n.state.restoreOverrides(); len(all) > 0 { // given since this process read them
			n.decider.core.MergeOverrides(all)
		}
	})
	n.startTiers(parts)
	n.decider.setReady(ctx, true)
	speaker, err := n.prepareSpeaker(setup)
	if err != nil {
		return fmt.Errorf("bgp: %w", err)
	}
	speaker.Commit()
	parts.start("cluster", n.gossip.Run)
	parts.start("admin", n.admin.Run)
	n.phase.Store("serving") // before whoever asked for the upgrade hears that it does
	if err := conn.Send(msgAdopted, struct{}{}, nil, sendLimit); err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	n.admin.OwnFile(true)
	adopted = true
	parts.start("counters of the old process", n.hearCounters)
	return nil
}

// startTiers starts what has been opened.
func (n *Node) startTiers(parts *parts) {
	n.mu.Lock()
	four, seven, datagrams, dns := n.l4, n.l7, n.udp, n.dns
	n.mu.Unlock()
	parts.start("l4", four.Run)
	parts.start("udp", datagrams.Run)
	parts.start("l7", seven.Run)
	parts.start("dns", dns.Run)
	parts.start("room", func(ctx context.Context) error { return watchRoom(ctx, dns, seven, four, datagrams) })
}

// takeLeash returns the BGP child that was handed over, once.
func (n *Node) takeLeash() *bgp.Leash {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.leash
	n.leash = nil
	return l
}

// endWith tells the components of these names to end, and why; join waits for them.
func (p *parts) endWith(cause error, names ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.running {
		if slices.Contains(names, c.name) {
			c.cancel(cause)
		}
	}
}

// join waits for the components of these names to end, at most limit, or until ctx ends.
func (p *parts) join(ctx context.Context, limit time.Duration, names ...string) {
	p.mu.Lock()
	running := slices.Clone(p.running)
	p.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for _, c := range running {
		if !slices.Contains(names, c.name) {
			continue
		}
		select {
		case <-c.done:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
