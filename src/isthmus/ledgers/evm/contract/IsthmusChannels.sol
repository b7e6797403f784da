// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title Unidirectional payment channels for ETH and ERC-20 tokens
/// @notice A sender locks an amount, hands out signed claims of a growing total, and the receiver redeems the highest.
/// Nobody owns this contract and nobody can change it.
///
/// What never changes of a channel (its terms) is passed with each call and stands in the channel's id, their hash; so
/// one word of storage is all that a channel needs. A closed channel keeps its word: an id is never used twice, and a
/// claim never counts in another channel.
///
/// State is always written before value moves, and no function can be entered while another runs.
contract IsthmusChannels {
    struct Terms {
        address sender;
        address receiver;
        address token; // zero for the chain's own coin
        uint32 settleDelay; // seconds from `startClose` until `finish`
        bytes32 salt; // of the sender's choice
    }

    struct Channel {
        uint112 deposited; // all that the sender ever put in
        uint112 claimed; // all that the receiver ever took out
        uint32 closingAt; // seconds since 1970; 0 while the channel is open, CLOSED for ever after its end
    }

    event Opened(bytes32 indexed channel, address indexed sender, address indexed receiver, address token, uint256 amount, uint256 settleDelay);
    event ToppedUp(bytes32 indexed channel, uint256 deposited);
    event Claimed(bytes32 indexed channel, uint256 claimed);
    event Closing(bytes32 indexed channel, uint256 closingAt);
    event Closed(bytes32 indexed channel, uint256 claimed);

    error Reentered();
    error Exists(); // this id is used, or was
    error NotOpen(); // no such channel, or it is closing or closed
    error NotParty(); // the caller may not do this
    error BadAmount(); // zero, too much, or less than what was claimed already
    error BadDelay();
    error BadSignature();
    error TooEarly();
    error TransferFailed(); // also: the token took a fee, or isn't one

    uint256 private constant SETTLE_DELAY_MAX = 365 days;
    uint32 private constant CLOSED = type(uint32).max;
    bytes32 private constant DOMAIN_TYPE =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant CLAIM_TYPE = keccak256("Claim(bytes32 channel,uint256 amount)");
    bytes32 private constant CLOSE_TYPE = keccak256("Close(bytes32 channel,uint256 amount)");

    uint256 private immutable _chainId = block.chainid;
    bytes32 private immutable _domain = _domainNow();
    bool private transient _entered;

    /// @notice The state of each channel by its id.
    mapping(bytes32 => Channel) public channels;

    modifier once() {
        if (_entered) revert Reentered();
        _entered = true;
        _;
        _entered = false;
    }

    /// @notice The id of the channel with these terms.
    function channelId(Terms calldata terms) public pure returns (bytes32) {
        return keccak256(abi.encode(terms));
    }

    /// @notice What a claim's or a close's EIP-712 hash begins with. Another after a fork of the chain.
    function domainSeparator() public view returns (bytes32) {
        return block.chainid == _chainId ? _domain : _domainNow();
    }

    /// @notice The sender opens a channel and locks the first amount: `msg.value`, or tokens that were approved.
    function open(Terms calldata terms, uint256 amount) external payable once returns (bytes32 id) {
        if (msg.sender != terms.sender || terms.receiver == address(0)) revert NotParty();
        if (terms.settleDelay > SETTLE_DELAY_MAX) revert BadDelay();
        id = channelId(terms);
        Channel storage channel = channels[id];
        if (channel.deposited != 0 || channel.closingAt != 0) revert Exists();
        if (amount == 0 || amount > type(uint112).max) revert BadAmount();
        channel.deposited = uint112(amount);
        emit Opened(id, terms.sender, terms.receiver, terms.token, amount, terms.settleDelay);
        _take(terms.token, amount);
    }

    /// @notice The sender adds to an open channel.
    function topUp(Terms calldata terms, uint256 amount) external payable once {
        if (msg.sender != terms.sender) revert NotParty();
        (bytes32 id, Channel memory channel) = _open(terms);
        uint256 deposited = channel.deposited + amount;
        if (amount == 0 || deposited > type(uint112).max) revert BadAmount();
        channel.deposited = uint112(deposited);
        channels[id] = channel;
        emit ToppedUp(id, deposited);
        _take(terms.token, amount);
    }

    /// @notice Pays the receiver up to the total that the sender has signed. Anybody may hand it in, until the end of
    /// the channel, closing or not. A total above what is there pays what is there.
    function claim(Terms calldata terms, uint256 amount, bytes32 r, bytes32 vs) external once {
        (bytes32 id, Channel memory channel) = _present(terms);
        if (_signer(CLAIM_TYPE, id, amount, r, vs) != terms.sender) revert BadSignature();
        if (amount > channel.deposited) amount = channel.deposited;
        if (amount <= channel.claimed) revert BadAmount();
        uint256 growth = amount - channel.claimed;
        channel.claimed = uint112(amount);
        channels[id] = channel;
        emit Claimed(id, amount);
        _give(terms.token, terms.receiver, growth);
    }

    /// @notice The receiver takes up to the total that the sender has signed, and the sender gets the rest: the end.
    /// With an amount that was claimed already, a signature isn't needed.
    function release(Terms calldata terms, uint256 amount, bytes32 r, bytes32 vs) external once {
        if (msg.sender != terms.receiver) revert NotParty();
        (bytes32 id, Channel memory channel) = _present(terms);
        if (amount > channel.claimed) {
            if (_signer(CLAIM_TYPE, id, amount, r, vs) != terms.sender) revert BadSignature();
            if (amount > channel.deposited) amount = channel.deposited;
        }
        _end(terms, id, channel, amount);
    }

    /// @notice The sender ends the channel at a total that the receiver has signed, who gets up to it.
    function close(Terms calldata terms, uint256 amount, bytes32 r, bytes32 vs) external once {
        if (msg.sender != terms.sender) revert NotParty();
        (bytes32 id, Channel memory channel) = _present(terms);
        if (_signer(CLOSE_TYPE, id, amount, r, vs) != terms.receiver) revert BadSignature();
        _end(terms, id, channel, amount);
    }

    /// @notice The sender wants his rest without the receiver, who has `settleDelay` seconds to claim from now on.
    function startClose(Terms calldata terms) external once {
        if (msg.sender != terms.sender) revert NotParty();
        (bytes32 id, Channel memory channel) = _open(terms);
        channel.closingAt = uint32(block.timestamp + terms.settleDelay);
        channels[id] = channel;
        emit Closing(id, channel.closingAt);
    }

    /// @notice After the settle delay the rest goes to the sender, whoever asks for it.
    function finish(Terms calldata terms) external once {
        (bytes32 id, Channel memory channel) = _present(terms);
        if (channel.closingAt == 0) revert NotOpen();
        if (block.timestamp < channel.closingAt) revert TooEarly();
        _end(terms, id, channel, channel.claimed);
    }

    function _present(Terms calldata terms) private view returns (bytes32 id, Channel memory channel) {
        id = channelId(terms);
        channel = channels[id];
        if (channel.deposited == 0) revert NotOpen();
    }

    function _open(Terms calldata terms) private view returns (bytes32 id, Channel memory channel) {
        (id, channel) = _present(terms);
        if (channel.closingAt != 0) revert NotOpen();
    }

    function _end(Terms calldata terms, bytes32 id, Channel memory channel, uint256 amount) private {
        if (amount < channel.claimed || amount > channel.deposited) revert BadAmount();
        channels[id] = Channel(0, uint112(amount), CLOSED);
        emit Closed(id, amount);
        _give(terms.token, terms.receiver, amount - channel.claimed);
        _give(terms.token, terms.sender, channel.deposited - amount);
    }

    function _domainNow() private view returns (bytes32) {
        return keccak256(abi.encode(DOMAIN_TYPE, keccak256("Isthmus channels"), keccak256("1"), block.chainid, address(this)));
    }

    /// The signature is (r, vs) of ERC-2098; nobody's is the zero address, which is no party either.
    function _signer(bytes32 kind, bytes32 id, uint256 amount, bytes32 r, bytes32 vs) private view returns (address) {
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", domainSeparator(), keccak256(abi.encode(kind, id, amount))));
        return ecrecover(digest, uint8(uint256(vs) >> 255) + 27, r, vs & bytes32(uint256(type(int256).max)));
    }

    /// Exactly this amount arrives, or nothing happens: tokens that take a fee, or rebase meanwhile, are refused.
    function _take(address token, uint256 amount) private {
        if (token == address(0)) {
            if (msg.value != amount) revert BadAmount();
            return;
        }
        if (msg.value != 0) revert BadAmount();
        uint256 before = _balance(token);
        _call(token, abi.encodeWithSelector(0x23b872dd, msg.sender, address(this), amount)); // transferFrom
        if (_balance(token) != before + amount) revert TransferFailed();
    }

    function _give(address token, address to, uint256 amount) private {
        if (amount == 0) return;
        if (token == address(0)) {
            (bool sent, ) = to.call{value: amount}("");
            if (!sent) revert TransferFailed();
        } else {
            _call(token, abi.encodeWithSelector(0xa9059cbb, to, amount)); // transfer
        }
    }

    function _balance(address token) private view returns (uint256) {
        (bool done, bytes memory answer) = token.staticcall(abi.encodeWithSelector(0x70a08231, address(this))); // balanceOf
        if (!done || answer.length < 32) revert TransferFailed();
        return abi.decode(answer, (uint256));
    }

    /// Some tokens answer nothing where the standard says `true`.
    function _call(address token, bytes memory data) private {
        (bool done, bytes memory answer) = token.call(data);
        if (!done || token.code.length == 0 || (answer.length != 0 && !abi.decode(answer, (bool)))) revert TransferFailed();
    }
}
