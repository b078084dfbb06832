package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/pharos-lb/pharos/bgp"
	"github.com/pharos-lb/pharos/forward"
	"github.com/pharos-lb/pharos/forward/l4/udp"
	"github.com/pharos-lb/pharos/internal/admin"
	"github.com/pharos-lb/pharos/internal/handover"
	"github.com/pharos-lb/pharos/internal/health"
)

// This file is the side of an upgrade that goes, takeover.go the one that comes. In order:
//
//	old: starts the new one             new: hello
//	old: offer (sockets, lock)          new: loads, binds what else there is, has verdicts: ready
//	old: goes silent, writes no more,
//	     release (the BGP child)        new: accepts, answers, gossips: adopted
//	old: accepts no more, finishes what it has,
//	     counted (what it has counted since) now and then, ends
//
// Until "adopted" the old one accepts and answers as ever. Whatever goes wrong before, the new
// process is killed first, so that there is never a second one that acts.

// upgradeProtocol is the version of these messages.
const upgradeProtocol = 2

// The messages.
const (
	msgHello   = "hello"
	msgOffer   = "offer"
	msgReady   = "ready"
	msgRelease = "release"
	msgAdopted = "adopted"
	msgFailed  = "failed"
	// msgCounted comes after "adopted"; whoever does not know it has closed the connection by then.
	msgCounted = "counted"
)

type helloBody struct {
	Protocol int
	Version  string
	BGPWire  int
}

type offerBody struct {
	Lock    bool // the first file is that of the state folder
	Sockets []handover.Socket
	Own     []ownState
}

// An ownState is what this node's own check of a target says. The new process goes by it until its own
// checks have a verdict: what it announces depends on nothing else.
type ownState struct {
	Target health.Target
	Status health.Status
	Weight uint8
}

type releaseBody struct {
	BGP *bgp.Leash // its files come first
	// Sessions of UDP; a file for each comes after those of BGP.
	Sessions []udp.Session
	Counters []carriedCounter
}

type countedBody struct{ Counters []carriedCounter }

type failedBody struct{ Error string }

const (
	// DefaultUpgradeLimit is how long the new process may take to be ready.
	DefaultUpgradeLimit = 45 * time.Second
	// DefaultUpgradeDrain is how long the old one may take to finish.
	DefaultUpgradeDrain = time.Hour

	helloLimit = 10 * time.Second
	sendLimit  = 5 * time.Second
	// adoptLimit is how long nobody may be responsible, at most; half of the BGP lease where that is less.
	adoptLimit = 2 * time.Second
	tellEvery  = 5 * time.Second // how often the old process says what it has counted
	tellLimit  = time.Second
	killLimit  = 5 * time.Second
)

// Upgrade starts a new process of the binary and hands everything over to it: sockets, the BGP
// sessions, the name in the cluster. When it returns without an error the new one serves, and Run
// finishes what is open here and returns. On an error this one serves on as if nothing had been.
func (n *Node) Upgrade(ctx context.Context, r admin.UpgradeRequest) (*admin.UpgradeResult, error) {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	result, err := n.upgrade(ctx, r)
	if err != nil {
		n.metrics.upgrades.WithLabelValues("error").Inc()
		n.log.Error("upgrade failed, this process serves on", "error", err)
		return nil, err
	}
	n.log.Info("upgraded: the new process serves", "pid", result.PID, "version", result.Version)
	return result, nil
}

func (n *Node) upgrade(ctx context.Context, r admin.UpgradeRequest) (*admin.UpgradeResult, error) {
	if phase := n.phase.Load(); phase != "serving" {
		return nil, fmt.Errorf("this node is %s; upgrade it when it serves", phase)
	}
	if r.Binary == "" {
		r.Binary = n.opts.Binary
	}
	if r.Limit <= 0 {
		r.Limit = DefaultUpgradeLimit
	}
	if r.Drain <= 0 {
		r.Drain = DefaultUpgradeDrain
	}
	s, err := n.startSuccessor(r.Binary)
	if err != nil {
		return nil, err
	}
	version, err := n.prepareSuccessor(ctx, s, r.Limit)
	if err == nil {
		err = n.release(s)
	}
	if err != nil {
		s.kill()
		s.conn.Close()
		return nil, err
	}
	n.admin.Leave() // who asks after the answer to this asks the new process
	n.heir = s.conn
	notifySystemd(fmt.Sprintf("MAINPID=%d", s.pid()))
	n.drainLimit.Store(int64(r.Drain))
	n.phase.Store("draining") // before a reload that waits may look
	close(n.handedOver)
	return &admin.UpgradeResult{PID: s.pid(), Version: version, OldPID: os.Getpid()}, nil
}

// A successor is the new process while it is not yet alone.
type successor struct {
	cmd   *exec.Cmd
	conn  *handover.Conn
	ended chan error // of Wait; capacity 1
}

func (s *successor) pid() int { return s.cmd.Process.Pid }

func (n *Node) startSuccessor(binary string) (*successor, error) {
	conn, theirs, err := handover.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command(binary, n.opts.Arguments...)
	cmd.Env = append(os.Environ(), handover.Env+"=3")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	s := &successor{cmd: cmd, conn: conn, ended: make(chan error, 1)}
	go func() { s.ended <- cmd.Wait() }() // ends with that process, or with this one
	return s, nil
}

// kill makes sure that it does nothing any more.
func (s *successor) kill() {
	_ = s.cmd.Process.Kill()
	select {
	case ended := <-s.ended:
		s.ended <- ended
	case <-time.After(killLimit): // the kernel holds it; it will not run again
	}
}

// await returns the next message, which has to be of a kind.
func (s *successor) await(ctx context.Context, kind string, limit time.Duration) (*handover.Message, error) {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	defer stop()
	m, err := s.conn.Receive(limit)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("upgrade: %w", ctx.Err())
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		select {
		case ended := <-s.ended:
			s.ended <- ended
			if ended == nil {
				return nil, errors.New("the new process ended by itself: is that binary a pharos that can take over?")
			}
			return nil, fmt.Errorf("the new process ended: %w (its own log says why)", ended)
		case <-time.After(killLimit):
			return nil, errors.New("the new process closed the connection")
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("the new process did not say %q within %s", kind, limit)
	case err != nil:
		return nil, fmt.Errorf("the new process: %w", err)
	case m.Kind == msgFailed:
		var f failedBody
		_ = m.Decode(&f)
		return nil, fmt.Errorf("the new process refused: %s", f.Error)
	case m.Kind != kind:
		return nil, fmt.Errorf("the new process said %q, want %q", m.Kind, kind)
	}
	return m, nil
}

// prepareSuccessor brings it to the point at which it could serve.
func (n *Node) prepareSuccessor(ctx context.Context, s *successor, limit time.Duration) (version string, err error) {
	m, err := s.await(ctx, msgHello, min(limit, helloLimit))
	if err != nil {
		return "", err
	}
	var hello helloBody
	if err := m.Decode(&hello); err != nil {
		return "", err
	}
	if hello.Protocol != upgradeProtocol {
		return "", fmt.Errorf("version %s hands over by protocol %d, this one by %d: restart instead", hello.Version, hello.Protocol, upgradeProtocol)
	}
	if n.hasSpeaker() && hello.BGPWire != bgp.Wire {
		return "", fmt.Errorf("version %s speaks version %d to its BGP child, the one that runs speaks %d: restart instead", hello.Version, hello.BGPWire, bgp.Wire)
	}
	own := n.saveAll(ctx)
	sockets, fds, err := handover.Listening()
	if err != nil {
		return "", fmt.Errorf("list this process's sockets: %w", err)
	}
	defer closeAll(fds)
	offer := offerBody{Sockets: sockets, Own: own}
	files := fds
	if lock, ok := n.state.lockFD(); ok {
		offer.Lock = true
		files = append([]int{lock}, fds...)
	}
	if err := s.conn.Send(msgOffer, offer, files, sendLimit); err != nil {
		return "", err
	}
	_, err = s.await(ctx, msgReady, limit)
	return hello.Version, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func (n *Node) hasSpeaker() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.speaker != nil
}

// saveAll puts what this node knows on disk, for the new process to start from, and returns what its own checks say.
func (n *Node) saveAll(ctx context.Context) (own []ownState) {
	d := n.decider
	d.do(ctx, func() {
		for _, s := range d.states {
			status, weight := s.Status, s.Weight
			if h, ok := d.handed[s.Target]; ok && !decided(status) {
				status, weight = h.Status, h.Weight
			}
			own = append(own, ownState{s.Target, status, weight})
		}
		if view := d.view.Load(); view != nil {
			if data, err := health.EncodeView(view); err == nil {
				d.state.note(viewFile, d.state.replace(viewFile, data))
			}
		}
		if data, err := health.EncodeRegisters(d.core.Ledger().Registers()); err == nil {
			d.state.note(registersFile, d.state.replace(registersFile, data))
		}
	})
	return own
}

// release gives the new process what only one can have. If that fails, it is dead before this one goes on.
func (n *Node) release(s *successor) error {
	limit := adoptLimit
	body, files := releaseBody{}, []int(nil)
	settle := func(bool) {}
	n.mu.Lock()
	speaker, datagrams, seven := n.speaker, n.udp, n.l7
	n.mu.Unlock()
	n.state.freeze()
	n.gossip.Suspend()
	closeSessions := func() {}
	resume := func() {
		closeSessions()
		seven.TakeBack()
		n.counters.thaw()
		n.gossip.Resume()
		n.state.thaw()
	}
	seven.Lend()
	if speaker != nil {
		limit = min(limit, n.setup.Load().Config.BGP.Lease/2)
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		leash, done, err := speaker.Detach(ctx)
		if err != nil {
			resume()
			return fmt.Errorf("the BGP child could not be let go of: %w", err)
		}
		settle = done
		if leash != nil {
			body.BGP, files = leash, leash.Files[:]
		}
	}
	if datagrams != nil {
		ctx, cancel := context.WithTimeout(context.Background(), limit/4)
		sessions, sockets := datagrams.HandOver(ctx)
		cancel()
		body.Sessions, files = sessions, append(slices.Clone(files), sockets...)
		defer closeAll(sockets)
		closeSessions = datagrams.TakeBack
	}
	counters, err := n.counters.freeze()
	if err != nil {
		n.log.Warn("some metrics could not be read; their counters begin anew in the new process", "error", err)
	}
	body.Counters = counters
	err = s.conn.Send(msgRelease, body, files, limit)
	if err == nil {
		_, err = s.await(context.Background(), msgAdopted, limit)
	}
	if err != nil {
		s.kill()
		settle(false)
		resume()
		return err
	}
	settle(true)
	return nil
}

// leave finishes what is open here, while the new process serves; ctx cuts it short.
func (n *Node) leave(ctx context.Context, parts *parts) {
	close(n.stopping)
	limit := time.Duration(n.drainLimit.Load())
	defer n.heir.Close()
	parts.endWith(forward.HandedOver{Limit: limit}, "l4", "udp", "l7", "dns")
	parts.stop(stopStep, "bgp", "cluster") // both have been silenced: nothing is withdrawn, nobody is told
	parts.stop(stopStep, "vip news", "vips", "decider", "probe", "geo watch", "overrides file", "canaries")
	parts.stop(stopStep, "saver of verdicts", "saver of registers", "saver of overrides")
	parts.stop(stopStep, "admin")
	n.log.Info("draining: connections that are open finish here", "limit", limit.String())
	parts.start("counters for the new process", n.tellCounters)
	parts.join(ctx, limit+stopStep, "l4", "udp", "l7", "dns")
	if n.opts.Takeover != nil { // what the process before still counts goes through this one
		select {
		case <-n.counters.ended:
		case <-ctx.Done():
		case <-time.After(limit):
		}
	}
	parts.stopAll(stopStep)
	n.tellGrowth()
	n.log.Info("drained, this process ends")
}
