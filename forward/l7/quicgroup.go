package l7

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/pharos-lb/pharos/internal/handover"
	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"
)

// When another process takes over, each of the two has a socket at the same address, and the kernel has to know
// which of them a datagram of QUIC is for. The connection ids that a process gives out begin with its epoch, and a
// program at the sockets (SO_ATTACH_REUSEPORT_CBPF) looks at it: who comes with an epoch of a process that is on its
// way out is sent there, everybody else to the newest.

const (
	// idLength is how long our connection ids are, epochLength how much of them is the epoch.
	idLength    = 12
	epochLength = 4
	// wordQUIC is where the members are left for the next process.
	wordQUIC = "QUIC"
)

// A member is one socket at an address, in the order in which the kernel has them.
type member struct {
	PID   int
	Epoch uint32
}

// quicGroups are the sockets at each address, of this process and of those that it has replaced.
type quicGroups struct {
	epoch uint32

	mu  sync.Mutex // guards all
	all map[string][]member
}

func newQUICGroups() *quicGroups {
	var b [epochLength]byte
	rand.Read(b[:])
	return &quicGroups{epoch: binary.BigEndian.Uint32(b[:]), all: make(map[string][]member)}
}

// GenerateConnectionID implements quic.ConnectionIDGenerator.
func (g *quicGroups) GenerateConnectionID() (quic.ConnectionID, error) {
	var id [idLength]byte
	binary.BigEndian.PutUint32(id[:], g.epoch)
	rand.Read(id[epochLength:])
	return quic.ConnectionIDFromBytes(id[:]), nil
}

// ConnectionIDLen implements quic.ConnectionIDGenerator.
func (g *quicGroups) ConnectionIDLen() int { return idLength }

// join is called before a socket is bound at an address. inherited is a socket of the process before, or −1. settle
// is to be called with the new one.
func (g *quicGroups) join(address netip.AddrPort, inherited int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := address.String()
	members := g.all[key]
	if inherited >= 0 && members == nil {
		var left map[string][]member
		_ = json.Unmarshal([]byte(handover.Left(wordQUIC)), &left) // nothing, where nothing was left
		members = living(left[key])
	}
	members = append(members, member{os.Getpid(), g.epoch})
	if inherited >= 0 && len(members) > 1 {
		if err := attach(inherited, members, len(members)-1); err != nil {
			return fmt.Errorf("steer QUIC at %s: %w", address, err)
		}
	}
	g.all[key] = members
	g.leaveLocked()
	return nil
}

func (g *quicGroups) leaveLocked() {
	if word, err := json.Marshal(g.all); err == nil {
		handover.Leave(wordQUIC, string(word))
	}
}

// part is called after this process's socket at an address was closed.
func (g *quicGroups) part(address netip.AddrPort) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := address.String()
	for i, m := range g.all[key] {
		if m.Epoch == g.epoch {
			g.all[key] = without(g.all[key], i)
			break
		}
	}
	if len(g.all[key]) == 0 {
		delete(g.all, key)
	}
	g.leaveLocked()
}

// tend notices that a process has ended, and has the kernel look by what is left.
func (g *quicGroups) tend(address netip.AddrPort, conn *net.UDPConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := address.String()
	before := g.all[key]
	after := living(before)
	if len(after) == len(before) {
		return
	}
	g.all[key] = after
	g.leaveLocked()
	g.attachLocked(after, conn)
}

// settle has the kernel choose among the sockets at an address, of which conn is one.
func (g *quicGroups) settle(address netip.AddrPort, conn *net.UDPConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.attachLocked(g.all[address.String()], conn)
}

func (g *quicGroups) attachLocked(members []member, conn *net.UDPConn) {
	for i, m := range members {
		if m.Epoch != g.epoch || len(members) < 2 {
			continue
		}
		if raw, err := conn.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = attach(int(fd), members, i) }) // without, the kernel draws lots
		}
	}
}

// living are the members whose process is there, in the order that the kernel has after the others have gone.
func living(members []member) []member {
	out := append([]member(nil), members...)
	for i := 0; i < len(out); {
		if err := unix.Kill(out[i].PID, 0); errors.Is(err, unix.ESRCH) {
			out = without(out, i)
		} else {
			i++
		}
	}
	return out
}

// without takes one out as the kernel does: the last one gets its place.
func without(members []member, i int) []member {
	out := append([]member(nil), members...)
	last := len(out) - 1
	out[i] = out[last]
	return out[:last]
}

// attach has the kernel choose by the epoch among members; newest is who gets what has none of theirs.
func attach(fd int, members []member, newest int) error {
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0x80, Jt: 2}, // a long header (RFC 8999, 5.1)
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 1},
		{Code: unix.BPF_JMP | unix.BPF_JA, K: 3},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 5},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: idLength, Jf: uint8(1 + 2*(len(members)-1))},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 6},
	}
	for i, m := range members {
		if i == newest {
			continue
		}
		program = append(program,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: m.Epoch, Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(i)})
	}
	program = append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(newest)})
	if len(members) > 60 {
		return errors.New("too many processes") // jumps are a byte
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}
