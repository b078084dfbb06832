package dnslb

import (
	"bytes"
	"log/slog"
	"sync"
)

// A testLog keeps what is logged.
type testLog struct {
	logger *slog.Logger
	mu     sync.Mutex
	buf    bytes.Buffer
}

func newLog() *testLog {
	l := new(testLog)
	l.logger = slog.New(slog.NewTextHandler(l, nil))
	return l
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
