package hello

import (
	"encoding/hex"
	"slices"
	"testing"
)

// vectors are hellos that neither this package nor crypto/tls has made.
var vectors = []struct {
	name, hex string
	want      Hello
}{
	// RFC 8448, section 3, the record of the client's first flight.
	{"RFC 8448", "16030100c4010000c00303cb34ecb1e78163ba1c38c6dacb196a6dffa21a8d9912ec18a2ef6283024dece7" +
		"000006130113031302010000910000000b0009000006736572766572ff01000100000a00140012001d0017001800190100010101020103" +
		"010400230000003300260024001d002099381de560e4bd43d23d8e435a7dbafeb3c06e51c13cae4d5413691e529aaf2c002b0003020304" +
		"000d0020001e040305030603020308040805080604010501060102010402050206020202002d00020101001c00024001", Hello{ServerName: "server"}},
	// OpenSSL 3.0, with -servername and -alpn.
	{"openssl s_client, TLS 1.3", "16030100f4010000f00303750dd2a32fef086eb419c6b5329e73f9613f5b5b7edb0ad846f8f3c7099125d820420fbb695044b80e3581" +
		"2933ce6bf30861063de96d6cb51826fcb5ee4ff4f44c000813021303130100ff0100009f00000014001200000f7777772e6578616d70" +
		"6c652e636f6d000b000403000102000a00040002001d002300000010000e000c02683208687474702f312e310016000000170000000d" +
		"001e001c040305030603080708080809080a080b080408050806040105010601002b0003020304002d00020101003300260024001d00" +
		"206e5076e8115d2993f7861c6793101058b24c0bc022e69df1e438dd3548f86d01", Hello{"www.example.com", []string{"h2", "http/1.1"}}},
	{"openssl s_client, TLS 1.2", "16030100e1010000dd030331872a36cceabe2fd0c2a12815342b06b8a10c6f3c78da6b94de96e8eda9266f000038c02cc030009fcca9" +
		"cca8ccaac02bc02f009ec024c028006bc023c0270067c00ac0140039c009c0130033009d009c003d003c0035002f00ff0100007c0000" +
		"0014001200000f7777772e6578616d706c652e636f6d000b000403000102000a000c000a001d0017001e00190018002300000010000e" +
		"000c02683208687474702f312e310016000000170000000d002a0028040305030603080708080809080a080b08040805080604010501" +
		"0601030303010302040205020602", Hello{"www.example.com", []string{"h2", "http/1.1"}}},
}

func vector(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVectors: each says the same to us and to crypto/tls, in whatever records it comes.
func TestVectors(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			b := vector(t, v.hex)
			want, ok := theirs(b)
			if !ok || want.ServerName != v.want.ServerName || !slices.Equal(want.Protocols, v.want.Protocols) {
				t.Fatalf("crypto/tls reads %+v, %v, want %+v", want, ok, v.want)
			}
			for _, size := range []int{1, 2, 50, len(b)} {
				h, err := Parse(append(spread(b, size), "more"...))
				if err != nil || h.ServerName != v.want.ServerName || !slices.Equal(h.Protocols, v.want.Protocols) {
					t.Errorf("in records of %d: got %+v, %v, want %+v", size, h, err, v.want)
				}
			}
			for cut := range len(b) {
				if _, err := Parse(b[:cut]); err != ErrIncomplete {
					t.Fatalf("the first %d bytes: %v", cut, err)
				}
			}
		})
	}
}

// TestManyRecords: what a hello in as many records as it has bytes costs does not grow with their square.
func TestManyRecords(t *testing.T) {
	b := spread(message(extension(0xff00, string(make([]byte, 8000)))), 1)
	if n := testing.AllocsPerRun(10, func() {
		if _, err := Parse(b); err != nil {
			t.Fatal(err)
		}
	}); n > 100 {
		t.Errorf("%v allocations for %d records", n, len(b)/6)
	}
}
