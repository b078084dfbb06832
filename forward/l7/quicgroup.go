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
	"slices"
	"sync"

	"github.com/pharos-lb/pharos/internal/handover"
	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"
)

// When another process takes over, each of the two has a socket at the same address, and the kernel has to know
// which of them a datagram of QUIC is for. The connection ids that a process gives out begin with its epoch, and a
// program at the sockets (SO_ATTACH_REUSEPORT_CBPF) looks at it: who comes with an epoch of a process that is on its
// way out is sent there, everybody else to the newest.
//
// The program speaks of sockets by their place, and the kernel gives the place of one that is closed to the last one. So
// no place may ever change: the newest process holds a copy of each socket, whether its owner still does or not, and
// the next process uses the socket of one that has ended in the place of a new one.

const (
	// idLength is how long our connection ids are, epochLength how much of them is the epoch.
	idLength    = 12
	epochLength = 4
	// wordQUIC is where the members are left for the next process.
	wordQUIC = "QUIC"
)

// A group are the sockets at one address.
type group struct {
	Members []member // in the order in which the kernel has them
	Newest  int      // who gets what is nobody else's
}

// A member is one socket, and the process that reads from it.
type member struct {
	PID    int // 0 = it has ended
	Epoch  uint32
	Socket uint64 // its number in the kernel
}

// quicGroups are the sockets at each address, of this process and of those that it has replaced.
type quicGroups struct {
	epoch uint32

	mu   sync.Mutex // guards the rest
	all  map[string]*group
	lent bool // another process tells the kernel
}

func newQUICGroups() *quicGroups {
	var b [epochLength]byte
	rand.Read(b[:])
	return &quicGroups{epoch: binary.BigEndian.Uint32(b[:]), all: make(map[string]*group)}
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

// join is called before this process has a socket at an address, with copies of the sockets that the process before had
// there. It returns which of them to use, −1 if a new one is to be bound. settle is to be called with it.
func (g *quicGroups) join(address netip.AddrPort, copies []int) (use int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := address.String()
	var left map[string]*group
	_ = json.Unmarshal([]byte(handover.Left(wordQUIC)), &left) // nothing, where nothing was left
	at := left[key]
	if len(copies) == 0 || at == nil {
		g.all[key] = new(group)
		return -1, nil
	}
	g.all[key] = at
	at.noteEnded()
	// From now on it matters what has no program yet: with a second socket the kernel would draw lots.
	if err := at.attach(copies[0]); err != nil {
		return -1, fmt.Errorf("steer QUIC at %s: %w", address, err)
	}
	use = -1
	for _, m := range at.Members {
		has := slices.IndexFunc(copies, func(fd int) bool { return socketNumber(fd) == m.Socket })
		if has < 0 {
			return -1, fmt.Errorf("steer QUIC at %s: the socket of process %d did not come along", address, m.PID)
		}
		if m.PID == 0 && use < 0 {
			use = copies[has]
		}
	}
	return use, nil
}

// settle has the kernel send to conn, at an address, whatever is nobody else's.
func (g *quicGroups) settle(address netip.AddrPort, conn *net.UDPConn) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := g.all[address.String()]
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		self := member{os.Getpid(), g.epoch, socketNumber(int(fd))}
		at.Newest = slices.IndexFunc(at.Members, func(m member) bool { return m.Socket == self.Socket })
		if at.Newest < 0 {
			at.Members, at.Newest = append(at.Members, self), len(at.Members)
		}
		at.Members[at.Newest] = self
		if len(at.Members) > 1 {
			failed = at.attach(int(fd))
		}
	})
	g.leaveLocked()
	if err := errors.Join(err, failed); err != nil { // the kernel draws lots
		return fmt.Errorf("steer QUIC at %s: %w", address, err)
	}
	return nil
}

func (g *quicGroups) leaveLocked() {
	if word, err := json.Marshal(g.all); err == nil {
		handover.Leave(wordQUIC, string(word))
	}
}

// part is called after this process's sockets at an address were closed.
func (g *quicGroups) part(address netip.AddrPort) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.all, address.String())
	g.leaveLocked()
}

// tend notices that a process has ended: what comes for it is answered by this one.
func (g *quicGroups) tend(address netip.AddrPort, conn *net.UDPConn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := g.all[address.String()]
	if at == nil || g.lent || !at.noteEnded() {
		return
	}
	g.leaveLocked()
	_ = at.attachTo(address, conn) // the program that is there is as good for the living
}

// lend is called before another process may take over: from then on it is the one that tells the kernel.
func (g *quicGroups) lend() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lent = true
}

// takeBack is called for each address when that process has ended before it took over. Its program is still at the
// sockets and sends what is nobody else's to a socket that is gone, for which the kernel draws lots, or that nobody reads
// from: the one of a process that has ended, which it was to use again.
func (g *quicGroups) takeBack(address netip.AddrPort, conn *net.UDPConn) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lent = false
	at := g.all[address.String()]
	if at == nil {
		return nil
	}
	at.noteEnded()
	g.leaveLocked()
	return at.attachTo(address, conn)
}

// noteEnded marks the members whose process has ended, and reports whether there are new ones.
func (g *group) noteEnded() (found bool) {
	for i, m := range g.Members {
		if m.PID != 0 && errors.Is(unix.Kill(m.PID, 0), unix.ESRCH) {
			g.Members[i].PID, found = 0, true
		}
	}
	return found
}

// socketNumber is what the kernel calls a socket, by whatever descriptor.
func socketNumber(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil {
		return 0
	}
	return st.Ino
}

// maxMembers is how many sockets there may be at an address: jumps in a program are a byte long.
const maxMembers = 60

// attachTo is attach for one of the sockets.
func (g *group) attachTo(address netip.AddrPort, conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = g.attach(int(fd)) })
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("steer QUIC at %s: %w", address, err)
	}
	return nil
}

// attach has the kernel choose by the epoch among the members; fd is one of the sockets.
func (g *group) attach(fd int) error {
	if len(g.Members) > maxMembers {
		return fmt.Errorf("%d processes, at most %d", len(g.Members), maxMembers)
	}
	var choice []unix.SockFilter
	for i, m := range g.Members {
		if i == g.Newest || m.PID == 0 {
			continue
		}
		choice = append(choice,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: m.Epoch, Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(i)})
	}
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0x80, Jt: 2}, // a long header (RFC 8999, 5.1)
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 1},
		{Code: unix.BPF_JMP | unix.BPF_JA, K: 3},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 5},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: idLength, Jf: uint8(1 + len(choice))},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 6},
	}
	program = append(append(program, choice...), unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: uint32(g.Newest)})
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}
