package handover

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Env names the descriptor of the connection in the environment of the new process.
	Env = "PHAROS_HANDOVER"
	// childFD is its number there: the first of exec.Cmd.ExtraFiles.
	childFD = 3

	maxMessage = 64 << 20 // bytes of one message
	maxFiles   = 65536    // files that come with one
	batchFiles = 200      // files of one sendmsg; the kernel takes 253
)

// A Conn joins the old process and the new one. One goroutine may send and another receive.
type Conn struct{ c *net.UnixConn }

// Pair returns both ends: ours, and the file that the new process gets as its descriptor 3.
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "hand-over")
	ours, err := connOf(os.NewFile(uintptr(fds[0]), "hand-over"))
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// Inherited returns the connection to the process that is to be replaced, nil if there is none:
// this process was started otherwise. It takes the word out of the environment, which is
// passed on to children.
func Inherited() (*Conn, error) {
	text, ok := os.LookupEnv(Env)
	if !ok {
		return nil, nil
	}
	os.Unsetenv(Env)
	if text != strconv.Itoa(childFD) {
		return nil, fmt.Errorf("%s is %q, want %d: it is set by a running pharos alone", Env, text, childFD)
	}
	unix.CloseOnExec(childFD)
	conn, err := connOf(os.NewFile(childFD, "hand-over"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: it is set by a running pharos alone", Env, err)
	}
	return conn, nil
}

func connOf(f *os.File) (*Conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("is not a unix socket")
	}
	return &Conn{u}, nil
}

// Close closes this end.
func (c *Conn) Close() error { return c.c.Close() }

// An envelope is what goes before a message.
type envelope struct {
	Kind  string
	Body  json.RawMessage
	Files int
}

// Send sends a message of a kind with open files, whose numbers stay the caller's. It takes at most limit.
func (c *Conn) Send(kind string, body any, files []int, limit time.Duration) error {
	raw, err := json.Marshal(body)
	if err == nil {
		raw, err = json.Marshal(envelope{kind, raw, len(files)})
	}
	if err != nil {
		return fmt.Errorf("send %s: %w", kind, err)
	}
	if err := c.c.SetWriteDeadline(time.Now().Add(limit)); err != nil {
		return fmt.Errorf("send %s: %w", kind, err)
	}
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(raw)))
	if _, err := c.c.Write(append(frame, raw...)); err != nil {
		return fmt.Errorf("send %s: %w", kind, err)
	}
	for len(files) > 0 {
		n := min(len(files), batchFiles)
		if _, _, err := c.c.WriteMsgUnix([]byte{0}, unix.UnixRights(files[:n]...), nil); err != nil {
			return fmt.Errorf("send the files of %s: %w", kind, err)
		}
		files = files[n:]
	}
	return nil
}

// A Message is one that has been received.
type Message struct {
	Kind  string
	body  json.RawMessage
	Files []int // the receiver's; Close closes them
}

// Decode reads the body.
func (m *Message) Decode(body any) error {
	if err := json.Unmarshal(m.body, body); err != nil {
		return fmt.Errorf("decode %s: %w", m.Kind, err)
	}
	return nil
}

// Close closes the files.
func (m *Message) Close() {
	for _, fd := range m.Files {
		unix.Close(fd)
	}
	m.Files = nil
}

// Receive waits for the next message, at most limit. The end of the other process is io.EOF.
func (c *Conn) Receive(limit time.Duration) (*Message, error) {
	if err := c.c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	var head [4]byte
	if _, err := io.ReadFull(c.c, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxMessage {
		return nil, fmt.Errorf("message of %d bytes, at most %d", n, maxMessage)
	}
	raw, err := io.ReadAll(io.LimitReader(c.c, int64(n)))
	if err == nil && len(raw) < int(n) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	var e envelope
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, fmt.Errorf("decode message: %w", err)
	}
	if e.Files < 0 || e.Files > maxFiles {
		return nil, fmt.Errorf("message with %d files, at most %d", e.Files, maxFiles)
	}
	m := &Message{Kind: e.Kind, body: e.Body}
	for len(m.Files) < e.Files {
		if err := c.files(m); err != nil {
			m.Close()
			return nil, fmt.Errorf("receive the files of %s: %w", e.Kind, err)
		}
	}
	return m, nil
}

// files receives one batch of files.
func (c *Conn) files(m *Message) error {
	var one [1]byte
	oob := make([]byte, unix.CmsgSpace(4*batchFiles))
	n, oobn, flags, _, err := c.c.ReadMsgUnix(one[:], oob)
	switch {
	case err != nil:
		return err
	case n == 0:
		return io.ErrUnexpectedEOF
	case flags&unix.MSG_CTRUNC != 0:
		return errors.New("this process may not have so many open files (RLIMIT_NOFILE)")
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return err
	}
	got := 0
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
		}
		m.Files = append(m.Files, fds...)
		got += len(fds)
	}
	if got == 0 {
		return errors.New("no files came")
	}
	return nil
}
