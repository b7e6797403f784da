// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// Tokens as they come: by the book, without answers, with a fee, and one that calls back.
contract Token {
    uint8 public constant decimals = 6;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    function mint(address to, uint256 value) external {
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    function transfer(address to, uint256 value) external returns (bool) {
        _move(msg.sender, to, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        allowance[from][msg.sender] -= value;
        _move(from, to, value);
        return true;
    }

    function _move(address from, address to, uint256 value) internal virtual {
        balanceOf[from] -= value;
        balanceOf[to] += value;
        emit Transfer(from, to, value);
    }
}

contract SilentToken {
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    function mint(address to, uint256 value) external {
        balanceOf[to] += value;
    }

    function approve(address spender, uint256 value) external {
        allowance[msg.sender][spender] = value;
    }

    function transfer(address to, uint256 value) external {
        balanceOf[msg.sender] -= value;
        balanceOf[to] += value;
    }

    function transferFrom(address from, address to, uint256 value) external {
        allowance[from][msg.sender] -= value;
        balanceOf[from] -= value;
        balanceOf[to] += value;
    }
}

contract FeeToken is Token {
    function _move(address from, address to, uint256 value) internal override {
        super._move(from, to, value - 1);
        balanceOf[from] -= 1;
    }
}

/// Says no without an error.
contract RefusingToken {
    function balanceOf(address) external pure returns (uint256) {
        return 0;
    }

    function transferFrom(address, address, uint256) external pure returns (bool) {
        return false;
    }
}

/// Receives ETH or tokens and calls the contract again while it does: `data` is what it tries.
contract Reenterer {
    address public target;
    bytes public data;
    bool public succeeded;

    function arm(address target_, bytes calldata data_) external {
        target = target_;
        data = data_;
    }

    function forward(address to, bytes calldata call_) external payable {
        (bool done, ) = to.call{value: msg.value}(call_);
        require(done, "refused");
    }

    receive() external payable {
        if (target != address(0)) (succeeded, ) = target.call(data);
    }
}

/// A token that calls back into whatever it was armed with while it moves.
contract CallbackToken is Token {
    address public target;
    bytes public data;
    bool public succeeded;

    function arm(address target_, bytes calldata data_) external {
        target = target_;
        data = data_;
    }

    function _move(address from, address to, uint256 value) internal override {
        super._move(from, to, value);
        if (target != address(0)) (succeeded, ) = target.call(data);
    }
}
