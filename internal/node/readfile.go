package node

import (
	"fmt"
	"io"
	"math"
	"os"
)

// readPart is how much of a file is read in one call.
const readPart = 256 << 10

// readFile is os.ReadFile in parts. A kernel that does not interrupt itself (PREEMPT_NONE, which servers like) gives the core to no
// other thread in the middle of a call, a DNS thread with real-time priority included; a zone of a million records in one call takes 10 ms.
func readFile(name string) ([]byte, error) { return readFileOf(name, math.MaxInt64) }

// readFileOf is readFile, unless there is more than so many octets.
func readFileOf(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > most {
		return nil, fmt.Errorf("%s has %d bytes, at most %d", name, info.Size(), most)
	}
	// One octet more shows the end without a larger buffer. A pipe, and what /proc has, have no size.
	data, err := readParts(f, make([]byte, 0, info.Size()+1), most)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

// readParts appends what r has to data.
func readParts(r io.Reader, data []byte, most int64) ([]byte, error) {
	for {
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
		n, err := r.Read(data[len(data):min(cap(data), len(data)+readPart)])
		data = data[:len(data)+n]
		switch {
		case int64(len(data)) > most:
			return nil, fmt.Errorf("there are more than %d bytes", most)
		case err == io.EOF:
			return data, nil
		case err != nil:
			return nil, err
		}
	}
}
