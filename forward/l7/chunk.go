package l7

import (
	"bytes"
	"errors"
)

const (
	maxChunkLine = 512     // bytes of a chunk's size and extensions
	maxTrailers  = 8 << 10 // bytes of a trailer section
	// maxExtensions bounds the bytes of chunk extensions in one body, which would
	// otherwise be a way to make a proxy work for nothing.
	maxExtensions = 16 << 10
)

var errChunk = errors.New("malformed chunk")

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkData
	chunkDataEnd
	chunkTrailer
	chunkDone
)

// A chunkReader takes a chunked body apart. RFC 9112, 7.1; nothing lenient.
type chunkReader struct {
	state      chunkState
	left       int64  // of the current chunk
	extensions int    // bytes so far
	trailers   []byte // checked lines with CRLF, those that may be passed on
	seen       int    // bytes of the trailer section so far
}

func (c *chunkReader) reset() { *c = chunkReader{trailers: c.trailers[:0]} }

func (c *chunkReader) done() bool { return c.state == chunkDone }

// next consumes bytes of p: it returns how many, and the payload among them
// (part of p), which may be empty. used 0 without an error means that more
// bytes are needed.
func (c *chunkReader) next(p []byte) (payload []byte, used int, err error) {
	switch c.state {
	case chunkData:
		n := int(min(int64(len(p)), c.left))
		c.left -= int64(n)
		if c.left == 0 {
			c.state = chunkDataEnd
		}
		return p[:n], n, nil
	case chunkDataEnd:
		if len(p) > 0 && p[0] != '\r' || len(p) > 1 && p[1] != '\n' {
			return nil, 0, errChunk
		}
		if len(p) < 2 {
			return nil, 0, nil
		}
		c.state = chunkSize
		return nil, 2, nil
	case chunkDone:
		return nil, 0, nil
	}
	line, used, err := chunkLine(p, c.state)
	if used == 0 || err != nil {
		return nil, 0, err
	}
	if c.state == chunkSize {
		return nil, used, c.size(line)
	}
	return nil, used, c.trailer(line)
}

// chunkLine cuts a line off p, without its CRLF.
func chunkLine(p []byte, state chunkState) (line []byte, used int, err error) {
	limit := maxChunkLine
	if state == chunkTrailer {
		limit = maxTrailers
	}
	lf := bytes.IndexByte(p[:min(len(p), limit)], '\n')
	switch {
	case lf < 0 && len(p) >= limit:
		return nil, 0, errChunk
	case lf < 0:
		return nil, 0, nil
	case lf == 0 || p[lf-1] != '\r':
		return nil, 0, errChunk
	}
	return p[:lf-1], lf + 1, nil
}

// size reads "1f" or "1f;extension".
func (c *chunkReader) size(line []byte) error {
	n := 0
	var size int64
	for n < len(line) && hexValue(line[n]) >= 0 {
		if n == 15 {
			return errChunk // does not fit, or is padded to look as if
		}
		size = size<<4 | int64(hexValue(line[n]))
		n++
	}
	extension := line[n:]
	if n == 0 || len(extension) > 0 && extension[0] != ';' || !isValue(extension) {
		return errChunk
	}
	if c.extensions += len(extension); c.extensions > maxExtensions {
		return errChunk
	}
	c.left = size
	c.state = chunkData
	if size == 0 {
		c.state = chunkTrailer
	}
	return nil
}

// trailer reads a trailer field or the empty line at the end. Fields that mean
// something to a proxy have no business in a trailer and are left out.
func (c *chunkReader) trailer(line []byte) error {
	if len(line) == 0 {
		c.state = chunkDone
		return nil
	}
	if c.seen += len(line) + 2; c.seen > maxTrailers {
		return errChunk
	}
	f, bad := parseField(line)
	if bad.bad() {
		return errChunk
	}
	if f.kind == kindOther {
		c.trailers = appendField(c.trailers, f.name, f.value)
	}
	return nil
}

// appendChunk appends payload as one chunk; an empty payload appends nothing.
func appendChunk(dst, payload []byte) []byte {
	if len(payload) == 0 {
		return dst
	}
	dst = appendHex(dst, uint64(len(payload)))
	dst = append(dst, '\r', '\n')
	dst = append(dst, payload...)
	return append(dst, '\r', '\n')
}

// appendLastChunk appends the end of a chunked body.
func appendLastChunk(dst, trailers []byte) []byte {
	dst = append(dst, '0', '\r', '\n')
	dst = append(dst, trailers...)
	return append(dst, '\r', '\n')
}

func appendHex(dst []byte, n uint64) []byte {
	const alphabet = "0123456789abcdef"
	shift := 60
	for shift > 0 && n>>shift == 0 {
		shift -= 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, alphabet[n>>shift&15])
	}
	return dst
}

func appendField(dst, name, value []byte) []byte {
	dst = append(dst, name...)
	dst = append(dst, ':', ' ')
	dst = append(dst, value...)
	return append(dst, '\r', '\n')
}
