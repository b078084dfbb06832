package offload

import (
	"encoding/binary"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Where things are in struct __sk_buff (include/uapi/linux/bpf.h).
const (
	skbLen         = 0
	skbPacketType  = 4
	skbProtocol    = 16
	skbVLANPresent = 20
	skbIfindex     = 40
	skbData        = 76
	skbDataEnd     = 80
	skbGSOSegs     = 164
	skbGSOSize     = 176
)

// What the program answers (enum tcx_action_base), and flags of the functions it calls.
const (
	tcxNext       = -1
	tcxDrop       = 2
	markMangled0  = 1 << 5 // BPF_F_MARK_MANGLED_0
	pseudoHeader  = 1 << 4 // BPF_F_PSEUDO_HDR
	ipv6Checksum  = 1 << 7 // BPF_F_IPV6: newer kernels only
	loopbackIndex = 1
)

// Where things are on the program's stack.
const (
	stackKey   = -keySize
	stackWrite = stackKey - 40  // what is written over the headers, 40 bytes at most
	stackSum   = stackWrite - 8 // the UDP checksum
	stackIndex = stackSum - 8   // which total
)

// A layout is where one IP version has things, from the beginning of the Ethernet header.
type layout struct {
	name           string
	family         int32
	etherType      [2]byte
	length         int16 // of what follows the Ethernet header, or (IPv6) the IP header
	icmp           int32
	tooLong        [2]byte // type and code of the ICMP message
	src, addr      int16   // the source address, the length of an address
	ttl            int16
	udp            int16 // the UDP header
	outer          int32 // bytes of the IP header
	pseudo         int64 // flags of the checksum function for a change of addresses
	lengthHasOuter bool
}

var ipv4 = layout{
	name: "v4", family: 4, etherType: [2]byte{0x08, 0x00}, length: 16, src: 26, addr: 4, ttl: 22, udp: 34, outer: 20,
	icmp: 1, tooLong: [2]byte{3, 4}, pseudo: pseudoHeader | markMangled0, lengthHasOuter: true,
}

var ipv6 = layout{
	name: "v6", family: 6, etherType: [2]byte{0x86, 0xdd}, length: 18, src: 22, addr: 16, ttl: 21, udp: 54, outer: 40,
	icmp: 58, tooLong: [2]byte{2, 0}, pseudo: pseudoHeader | markMangled0,
}

func native16(b [2]byte) int32 { return int32(binary.NativeEndian.Uint16(b[:])) }

// instructions returns the program, which looks up UDP over IPv4 and IPv6 in the map of sessions. The registers: R6 the context,
// R7 the packet, R8 the entry, R9 the length of the IP packet.
//
// Whatever it does not know it leaves as it is to the next program, and in the end to the sockets (TCX_NEXT). It writes with the
// kernel's functions and not into the packet, because a program that does has every packet copied that is shared with anyone, those of
// TCP among them.
func (l *Lane) instructions(ipv6Flag int64) asm.Instructions {
	v6 := ipv6
	v6.pseudo |= ipv6Flag
	p := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, skbPacketType, asm.Word),
		asm.JNE.Imm(asm.R2, 0, "next"), // not for this machine
		asm.LoadMem(asm.R2, asm.R6, skbVLANPresent, asm.Word),
		asm.JNE.Imm(asm.R2, 0, "next"), // for another interface
		asm.LoadMem(asm.R2, asm.R6, skbProtocol, asm.Word),
		asm.JEq.Imm(asm.R2, native16(v6.etherType), v6.name),
		asm.JNE.Imm(asm.R2, native16(ipv4.etherType), "next"),
	}
	p = append(p, ipv4.instructions(l)...)
	p = append(p, v6.instructions(l)...)
	p = append(p, asm.StoreImm(asm.RFP, stackIndex, tooLong, asm.Word).WithSymbol("too-long"))
	p = append(p, count(l.counters, "too-long")...)
	return append(p,
		asm.Mov.Imm(asm.R0, tcxNext).WithSymbol("next"),
		asm.Return(),
		asm.Mov.Imm(asm.R0, tcxDrop).WithSymbol("drop"),
		asm.Return(),
	)
}

// instructions returns what is done with packets of one IP version.
func (l *layout) instructions(of *Lane) asm.Instructions {
	p := l.reach()
	p = append(p, l.check()...)
	p = append(p, l.lookUp(of)...)
	p = append(p, l.fits()...)
	p = append(p, l.rewrite()...)
	p = append(p, l.checksums()...)
	return append(p, l.send(of.counters)...)
}

// reach makes the headers accessible: R7 is the packet.
func (l *layout) reach() asm.Instructions {
	size := int32(l.udp) + 8
	return asm.Instructions{
		asm.LoadMem(asm.R7, asm.R6, skbData, asm.Word).WithSymbol(l.name),
		asm.LoadMem(asm.R3, asm.R6, skbDataEnd, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Add.Imm(asm.R2, size),
		asm.JLE.Reg(asm.R2, asm.R3, l.name+"-read"),
		asm.LoadMem(asm.R2, asm.R6, skbLen, asm.Word),
		asm.JLT.Imm(asm.R2, size, "next"),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, size),
		asm.FnSkbPullData.Call(),
		asm.JNE.Imm(asm.R0, 0, "next"),
		asm.LoadMem(asm.R7, asm.R6, skbData, asm.Word),
		asm.LoadMem(asm.R3, asm.R6, skbDataEnd, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Add.Imm(asm.R2, size),
		asm.JGT.Reg(asm.R2, asm.R3, "next"),
	}
}

// check leaves everything but a whole UDP datagram behind a plain IP header to the sockets, and puts the length
// of the IP packet into R9.
func (l *layout) check() asm.Instructions {
	p := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R7, 14, asm.Byte).WithSymbol(l.name + "-read"),
	}
	if l.family == 4 {
		p = append(p,
			asm.JNE.Imm(asm.R2, 0x45, "next"), // options
			asm.LoadMem(asm.R2, asm.R7, 20, asm.Half),
			asm.And.Imm(asm.R2, native16([2]byte{0x3f, 0xff})),
			asm.JNE.Imm(asm.R2, 0, "next"), // a fragment
			asm.LoadMem(asm.R2, asm.R7, 23, asm.Byte),
		)
	} else {
		p = append(p,
			asm.RSh.Imm(asm.R2, 4),
			asm.JNE.Imm(asm.R2, 6, "next"),
			asm.LoadMem(asm.R2, asm.R7, 20, asm.Byte),
		)
	}
	p = append(p,
		asm.JEq.Imm(asm.R2, 17, l.name+"-udp"),
		asm.JNE.Imm(asm.R2, l.icmp, "next"), // extension headers too
		asm.LoadMem(asm.R2, asm.R7, l.udp, asm.Half),
	)
	if l.family == 6 { // the code says nothing
		p = append(p, asm.And.Imm(asm.R2, native16([2]byte{0xff, 0})))
	}
	p = append(p,
		asm.JEq.Imm(asm.R2, native16(l.tooLong), "too-long"),
		asm.Ja.Label("next"),
		asm.LoadMem(asm.R9, asm.R7, l.length, asm.Half).WithSymbol(l.name+"-udp"),
		asm.HostTo(asm.BE, asm.R9, asm.Half),
		asm.LoadMem(asm.R2, asm.R7, l.udp+4, asm.Half),
		asm.HostTo(asm.BE, asm.R2, asm.Half),
		asm.JLT.Imm(asm.R2, 8, "next"),
	)
	if l.lengthHasOuter {
		p = append(p, asm.Add.Imm(asm.R2, l.outer))
	}
	p = append(p, asm.JNE.Reg(asm.R2, asm.R9, "next"))
	if !l.lengthHasOuter {
		p = append(p,
			asm.Add.Imm(asm.R9, l.outer),
			asm.LoadMem(asm.R2, asm.R7, l.udp+6, asm.Half),
			asm.JEq.Imm(asm.R2, 0, "next"), // a checksum is not optional here
		)
	}
	return append(p, // cut short?
		asm.LoadMem(asm.R3, asm.R6, skbLen, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R9),
		asm.Add.Imm(asm.R2, 14),
		asm.JGT.Reg(asm.R2, asm.R3, "next"),
	)
}

// lookUp puts the entry of the packet's session into R8.
func (l *layout) lookUp(of *Lane) asm.Instructions {
	var p asm.Instructions
	for i := int16(0); i < 16; i += 4 { // both addresses
		for j, at := range []int16{keySrc, keyDst} {
			if i < l.addr {
				p = append(p,
					asm.LoadMem(asm.R2, asm.R7, l.src+int16(j)*l.addr+i, asm.Word),
					asm.StoreMem(asm.RFP, stackKey+at+i, asm.R2, asm.Word))
			} else {
				p = append(p, asm.StoreImm(asm.RFP, stackKey+at+i, 0, asm.Word))
			}
		}
	}
	return append(p,
		asm.LoadMem(asm.R2, asm.R7, l.udp, asm.Word),
		asm.StoreMem(asm.RFP, stackKey+keyPorts, asm.R2, asm.Word),
		asm.StoreImm(asm.RFP, stackKey+keyFamily, int64(l.family), asm.Word),
		asm.LoadMapPtr(asm.R1, of.sessions.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "next"),
		asm.Mov.Reg(asm.R8, asm.R0),
		asm.LoadMapValue(asm.R2, of.present.FD(), 0),
		asm.LoadMem(asm.R2, asm.R2, 0, asm.DWord),
		asm.LoadMem(asm.R3, asm.R8, entryGen, asm.DWord),
		asm.JNE.Reg(asm.R2, asm.R3, "next"), // the network was another one
	)
}

// fits leaves to the sockets what has come another way than the session's datagrams do, has travelled for too long, or is
// too long for the way out.
func (l *layout) fits() asm.Instructions {
	ok, one, far := l.name+"-fits", l.name+"-one", l.name+"-far"
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R8, entryIfindex, asm.Word),
		asm.LoadMem(asm.R3, asm.R6, skbIfindex, asm.Word),
		asm.JNE.Imm(asm.R2, 0, far),
		asm.JNE.Imm(asm.R3, loopbackIndex, "next"),
		asm.Ja.Label(ok),
		asm.JEq.Imm(asm.R3, loopbackIndex, "next").WithSymbol(far),
		asm.LoadMem(asm.R2, asm.R7, l.ttl, asm.Byte),
		asm.JLE.Imm(asm.R2, 1, "next"),
		asm.LoadMem(asm.R3, asm.R6, skbGSOSize, asm.Word),
		asm.JEq.Imm(asm.R3, 0, one),
		asm.Add.Imm(asm.R3, l.outer+8),
		asm.LoadMem(asm.R2, asm.R8, entryMTU, asm.Word),
		asm.JGT.Reg(asm.R3, asm.R2, "next"),
		asm.Ja.Label(ok),
		asm.LoadMem(asm.R2, asm.R8, entryMTU, asm.Word).WithSymbol(one),
		asm.JGT.Reg(asm.R9, asm.R2, "next"),
	}
}

// rewrite writes the new TTL, addresses and ports over the old ones in one go; for IPv4 the checksum of the header lies between
// them.
func (l *layout) rewrite() asm.Instructions {
	size := int32(l.src-l.ttl) + 2*int32(l.addr) + 4
	gap := stackWrite + l.src - l.ttl // where the addresses are written
	p := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R7, l.udp+6, asm.Half).WithSymbol(l.name + "-fits"),
		asm.StoreMem(asm.RFP, stackSum, asm.R2, asm.DWord),
		asm.LoadMem(asm.R2, asm.R8, entryIfindex, asm.Word),
		asm.LoadMem(asm.R3, asm.R7, l.ttl, asm.Byte),
		asm.Mov.Imm(asm.R4, 0), // how the word with the TTL changes
		asm.JEq.Imm(asm.R2, 0, l.name+"-ttl"),
		asm.Sub.Imm(asm.R3, 1),
		asm.Mov.Imm(asm.R4, native16([2]byte{0xff, 0xff})-native16([2]byte{0x01, 0x00})),
		asm.StoreMem(asm.RFP, stackWrite, asm.R3, asm.Byte).WithSymbol(l.name + "-ttl"),
	}
	if l.family == 4 { // RFC 1624
		p = append(p,
			asm.LoadMem(asm.R2, asm.R7, l.ttl+1, asm.Byte),
			asm.StoreMem(asm.RFP, stackWrite+1, asm.R2, asm.Byte),
			asm.LoadMem(asm.R2, asm.R7, l.ttl+2, asm.Half),
			asm.Xor.Imm(asm.R2, 0xffff),
			asm.Add.Reg(asm.R2, asm.R4),
			asm.LoadMem(asm.R3, asm.R8, entryAddrDiff, asm.Word),
			asm.Add.Reg(asm.R2, asm.R3),
		)
		for range 3 { // 32 bits and a little fold to 16 in three steps
			p = append(p,
				asm.Mov.Reg(asm.R3, asm.R2),
				asm.RSh.Imm(asm.R3, 16),
				asm.And.Imm(asm.R2, 0xffff),
				asm.Add.Reg(asm.R2, asm.R3),
			)
		}
		p = append(p,
			asm.Xor.Imm(asm.R2, 0xffff),
			asm.StoreMem(asm.RFP, stackWrite+2, asm.R2, asm.Half),
		)
	}
	for i := int16(0); i < l.addr; i += 4 {
		p = append(p,
			asm.LoadMem(asm.R2, asm.R8, entrySrc+i, asm.Word),
			asm.LoadMem(asm.R3, asm.R8, entryDst+i, asm.Word))
		p = append(p, storeWord(gap+i, asm.R2)...)
		p = append(p, storeWord(gap+l.addr+i, asm.R3)...)
	}
	p = append(p, asm.LoadMem(asm.R2, asm.R8, entryPorts, asm.Word))
	p = append(p, storeWord(gap+2*l.addr, asm.R2)...)
	return append(p,
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, int32(l.ttl)),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, int32(stackWrite)),
		asm.Mov.Imm(asm.R4, size),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkbStoreBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "next"), // nothing has been written
	)
}

// storeWord writes a register to a place of the stack, aligned or not.
func storeWord(at int16, r asm.Register) asm.Instructions {
	if at%4 == 0 {
		return asm.Instructions{asm.StoreMem(asm.RFP, at, r, asm.Word)}
	}
	order := []int16{0, 1, 2, 3}
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		order = []int16{3, 2, 1, 0}
	}
	var p asm.Instructions
	for i, o := range order {
		if i > 0 {
			p = append(p, asm.RSh.Imm(r, 8))
		}
		p = append(p, asm.StoreMem(asm.RFP, at+o, r, asm.Byte))
	}
	return p
}

// checksums corrects the UDP checksum: the kernel's function knows whether there is a whole one, or only the part of the pseudo
// header that a network card goes on from.
func (l *layout) checksums() asm.Instructions {
	p := asm.Instructions{
		asm.LoadMem(asm.R2, asm.RFP, stackSum, asm.DWord),
		asm.JEq.Imm(asm.R2, 0, l.name+"-count"), // there is none
	}
	for _, c := range []struct {
		diff  int16
		flags int64
	}{{entryAddrDiff, l.pseudo}, {entryPortDiff, markMangled0}} {
		p = append(p,
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Imm(asm.R2, int32(l.udp)+6),
			asm.Mov.Imm(asm.R3, 0),
			asm.LoadMem(asm.R4, asm.R8, c.diff, asm.Word),
			asm.Mov.Imm(asm.R5, int32(c.flags)),
			asm.FnL4CsumReplace.Call(),
			asm.JNE.Imm(asm.R0, 0, "drop"),
		)
	}
	return p
}

// send counts the packet, and has it go where it goes now.
func (l *layout) send(counters *ebpf.Map) asm.Instructions {
	p := asm.Instructions{
		asm.FnKtimeGetCoarseNs.Call().WithSymbol(l.name + "-count"),
		asm.StoreMem(asm.R8, entryLast, asm.R0, asm.DWord),
		asm.LoadMem(asm.R2, asm.R8, entryDirection, asm.Word),
		asm.StoreMem(asm.RFP, stackIndex, asm.R2, asm.Word),
	}
	p = append(p, count(counters, l.name)...)
	return append(p,
		asm.LoadMem(asm.R1, asm.R8, entryIfindex, asm.Word),
		asm.JEq.Imm(asm.R1, 0, "next"),
		asm.Mov.Imm(asm.R2, 0),
		asm.Mov.Imm(asm.R3, 0),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRedirectNeigh.Call(),
		asm.Return(),
	)
}

// count adds the datagrams of a packet, of which there may be several (GSO), to the total whose number is on the stack.
func count(counters *ebpf.Map, name string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, counters.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackIndex),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "next"), // it has all of them
		asm.LoadMem(asm.R1, asm.R6, skbGSOSegs, asm.Word),
		asm.JNE.Imm(asm.R1, 0, name+"-several"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord).WithSymbol(name + "-several"),
	}
}
